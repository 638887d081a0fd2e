import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from random_predictions import make

from bayes_share.errors import InputError
from bayes_share.evaluation import Predictions, reliability_picture, score

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def comments(path: Path) -> list[str]:
    """The texts of an SVG. matplotlib draws them as outlines, with the text in a comment above each."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    tree = ElementTree.parse(path, parser)
    return [(node.text or "").strip() for node in tree.iter() if callable(node.tag)]  # a comment's tag is a function


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_png_has_a_panel_for_each_run(tmp_path: Path, number: int) -> None:
    from matplotlib.image import imread

    path = tmp_path / "new" / "picture.png"
    reliability_picture({f"run {i}": make(seed=i) for i in range(number)}, path)
    assert path.read_bytes().startswith(SIGNATURE)
    assert list(path.parent.iterdir()) == [path]
    height, width = imread(path).shape[:2]
    assert (width, height) == {1: (512, 672), 2: (944, 672), 5: (1376, 1296)}[number]


def test_an_svg_contains_names_and_scores(tmp_path: Path) -> None:
    runs = {"map": make(draws=1, members=1), "costs $5_$ or so": make(seed=1), "<b> & co": make(seed=2)}
    path = tmp_path / "picture.svg"
    reliability_picture(runs, path)
    said = comments(path)
    for name, predictions in runs.items():
        scores = score(predictions)
        assert any(name in text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for text in said)
        assert f"accuracy {scores.accuracy:.1%}, ECE {scores.ece:.4f}" in "\n".join(said)
    assert {"accuracy", "confidence", "examples [%]", "overconfident", "underconfident", "calibrated"} <= set(said)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_predictions_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        reliability_picture({"run": make()}, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def column(path: Path, confidence: float) -> np.ndarray:
    """The colours along a vertical line through the panel, from bottom to top, as indices."""
    from matplotlib.image import imread

    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    colours = {"accuracy": (0x00, 0x72, 0xB2), "over": (0xF5, 0xCF, 0x80), "under": (0xA8, 0xD8, 0xF4)}
    left, right = 91, 489  # of the panel, in a picture of one run
    x = round(left + confidence * (right - left))
    line = pixels[:, x - 10 : x + 10][:420]
    return np.array([[(line == colour).all(-1).any(-1).sum()] for colour in colours.values()]).ravel()


@pytest.mark.parametrize(("right", "gap"), [(1, "over"), (3, "under")])
def test_bar_heights_match_the_values(tmp_path: Path, right: int, gap: str) -> None:
    probs = torch.tensor([[0.5, 0.2, 0.2, 0.1]]).expand(4, -1)
    labels = torch.tensor([0] * right + [1] * (4 - right))
    reliability_picture({"run": Predictions(probs.log()[None, None], labels)}, tmp_path / "p.png", bins=5)
    blue, over, under = column(tmp_path / "p.png", 0.45)
    # A panel is about 316 pixels high: accuracy 1/4 or 3/4, confidence 1/2, and hatches take their share of a gap.
    assert abs(blue - 316 * min(right / 4, 0.5)) < 12
    assert (over > 50, under > 50) == (gap == "over", gap == "under")


def test_the_global_state_of_matplotlib_is_unchanged(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    reliability_picture({"run": make()}, tmp_path / "picture.png")
    assert dict(matplotlib.rcParams) == before


def test_no_display_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys, torch\n"
        "from bayes_share.evaluation import Predictions, reliability_picture\n"
        "one = Predictions(torch.zeros(1, 1, 2, 3), torch.tensor([0, 1]))\n"
        f"reliability_picture({{'run': one}}, {str(tmp_path / 'p.png')!r})\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", ["picture.jpg", "picture", "png"])
def test_another_suffix_is_rejected_before_drawing(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: the name of a picture must end in .png or .svg"):
        reliability_picture({"run": make()}, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_empty_runs_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs to draw"):
        reliability_picture({}, tmp_path / "picture.png")


def test_fewer_than_one_bin_is_rejected_without_writing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one bin"):
        reliability_picture({"run": make()}, tmp_path / "picture.png", bins=0)
    assert list(tmp_path.iterdir()) == []
