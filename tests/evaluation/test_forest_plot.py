import re
from pathlib import Path

import pytest
import torch

from bayes_share.errors import InputError
from bayes_share.evaluation import factor_forest


def factors(draws: int = 20, members: int = 3, channels: int = 30) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(0)
    return {
        name: 1 + 0.1 * torch.randn(draws, members, channels, generator=source)
        for name in ("layers.1.r", "layers.1.s", "$a$.r", "head.s", "head.r")
    }


@pytest.mark.parametrize("draws", [1, 2, 20])
@pytest.mark.parametrize("members", [1, 3, 9])
@pytest.mark.parametrize("channels", [1, 12, 30])
def test_a_forest_plot_is_written(draws: int, members: int, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "forest.svg"
    factor_forest(factors(draws, members, channels), path)
    text = path.read_text()
    assert "<svg" in text
    assert ("12 of 30 channels" in re.sub(r"\s+", " ", text)) == (channels == 30)


def test_the_plot_is_deterministic(tmp_path: Path) -> None:
    for suffix in ("png", "svg"):
        one, other = (tmp_path / f"{name}.{suffix}" for name in ("one", "other"))
        factor_forest(factors(), one)
        factor_forest(factors(), other)
        assert one.read_bytes() == other.read_bytes()
        factor_forest({name: -values for name, values in factors().items()}, other)
        assert one.read_bytes() != other.read_bytes()


def test_the_intervals_contain_the_right_share_of_draws() -> None:
    from matplotlib.figure import Figure

    from bayes_share.evaluation.forest_plot import _draw

    values = torch.arange(101, dtype=torch.float64)[:, None, None].expand(101, 1, 2) + torch.tensor([0.0, 1000.0])
    axes = Figure().subplots()
    _draw(axes, "w", values, 12)
    thin, thick = (collection.get_segments() for collection in axes.collections)
    for row, offset in enumerate((0, 1000)):
        assert thin[row][:, 0].tolist() == pytest.approx([3 + offset, 97 + offset])
        assert thick[row][:, 0].tolist() == pytest.approx([25 + offset, 75 + offset])
        assert axes.lines[0].get_xdata()[row] == 50 + offset
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]


def test_invalid_factors_and_paths_are_rejected(tmp_path: Path, unchecked: None) -> None:
    good = factors()
    for values, path, line in (
        (good, "a.pdf", r"a.pdf: the name of a picture must end in \.png or \.svg"),
        ({}, "a.png", "there are no rank-1 factors to draw"),
        (
            {"w": torch.ones(3, 2)},
            "a.png",
            r"w must have the axes \[draw, member, channel\], and has the",
        ),
        ({"w": torch.full((3, 2, 1), float("nan"))}, "a.png", "w has values that are not finite"),
    ):
        with pytest.raises(InputError, match=line):
            factor_forest(values, tmp_path / path)
    with pytest.raises(InputError, match="num_channels must be at least 1, and is 0"):
        factor_forest(good, tmp_path / "a.png", num_channels=0)
    assert list(tmp_path.iterdir()) == []
