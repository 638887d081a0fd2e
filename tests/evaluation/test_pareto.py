"""The Pareto front against its definition, and its figure."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from bayes_share.errors import InputError
from bayes_share.evaluation.pareto import Spot, frontier_picture, pareto_front
from bayes_share.evaluation.seed_statistics import Estimate, estimate

MEASURES = {"nll": "NLL", "ece": "ECE"}


def spot(label: str, parameters: int, *nll: float) -> Spot:
    return Spot(label, parameters, {"nll": estimate(nll), "ece": estimate(x / 10 for x in nll)})


PLAIN = [spot("small", 100, 2.0, 2.2), spot("$large$", 1000, 1.0, 1.1)]
SHARING = {"layers": [spot("all", 300, 1.2, 1.0), spot("early", 400, 0.9)], "members": [spot("4", 1100, 0.8, 0.9)]}


def dominated(point: tuple[float, float], others: list[tuple[float, float]]) -> bool:
    return any(o[0] <= point[0] and o[1] <= point[1] and o != point for o in others)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_front_contains_exactly_the_nondominated_points(count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(30):
        points = [(float(a), float(b)) for a, b in rng.integers(0, 6, (count, 2))]  # with many ties
        front = pareto_front(points)
        assert set(front) == {i for i, point in enumerate(points) if not dominated(point, points)}
        assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_the_front_does_not_depend_on_the_order() -> None:
    points = [(1.0, 3.0), (2.0, 3.0), (2.0, 1.0), (1.0, 3.0)]
    for order in itertools.permutations(range(4)):
        assert {order[i] for i in pareto_front([points[i] for i in order])} == {0, 2, 3}


def test_the_front_of_no_points_is_empty() -> None:
    assert pareto_front([]) == []


def test_infinite_values_are_allowed() -> None:
    assert pareto_front([(math.inf, 1.0), (1.0, 2.0)]) == [1, 0]
    assert pareto_front([(1.0, math.inf)]) == [0]


def test_nan_is_rejected() -> None:
    with pytest.raises(InputError, match="point 1 of the Pareto front is not a pair of numbers:"):
        pareto_front([(1.0, 2.0), (1.0, math.nan)])


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_picture_is_deterministic(suffix: str, start: bytes, tmp_path: Path) -> None:
    pictures = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in pictures:
        frontier_picture(PLAIN, SHARING, MEASURES, "$title$", path)
    first, second = (path.read_bytes() for path in pictures)
    assert first == second
    assert first.startswith(start)


def test_every_network_has_a_name_and_a_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw))[1])
    frontier_picture(PLAIN, SHARING, MEASURES, "title", tmp_path / "a.png")
    (figure,) = figures
    (legend,) = figure.legends
    labels = {text.get_text() for text in legend.get_texts()}
    assert labels == {"plain networks", "all", "early", "4", "Pareto front"}
    assert "a small" in legend.get_title().get_text()
    nll, ece = figure.axes
    assert (nll.get_ylabel(), ece.get_ylabel()) == ("NLL", "ECE")
    assert nll.get_xscale() == "log"
    line, *_, front = nll.get_lines()
    assert list(line.get_xdata()) == [100, 1000]
    assert list(line.get_ydata()) == pytest.approx([2.1, 1.05])
    assert list(front.get_xdata()) == [100, 300, 400, 1100]


@pytest.mark.parametrize("nll", [(0.0,), (0.0, 0.0), (1e-9,), (1e6, 1.0)])
def test_extreme_values_are_drawn(nll: tuple[float, ...], tmp_path: Path) -> None:
    frontier_picture(
        [spot("one", 1, *nll)], {"layers": [spot("two", 10**9, 1.0)]}, MEASURES, "title", tmp_path / "a.png"
    )
    assert (tmp_path / "a.png").is_file()


def test_invalid_pictures_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        frontier_picture(PLAIN, SHARING, MEASURES, "title", tmp_path / "a.jpg")
    with pytest.raises(InputError, match="there are no plain networks or no measures to draw"):
        frontier_picture([], SHARING, MEASURES, "title", path)
    with pytest.raises(InputError, match="there are no plain networks or no measures to draw"):
        frontier_picture(PLAIN, SHARING, {}, "title", path)
    one = SHARING["members"]
    with pytest.raises(InputError, match="at most 5 kinds of sharing, not 6"):
        frontier_picture(PLAIN, dict.fromkeys("abcdef", one), MEASURES, "title", path)
    with pytest.raises(InputError, match="at most 10 networks, not 11"):
        frontier_picture(PLAIN, {"layers": 11 * one}, MEASURES, "title", path)
    with pytest.raises(InputError, match="at most 26 plain networks, not 27"):
        frontier_picture(27 * one, {}, MEASURES, "title", path)
    bad = Spot("bad", 5, {"nll": Estimate(math.nan, None, 1), "ece": Estimate(0.1, None, 1)})
    with pytest.raises(InputError, match="of the Pareto front is not a pair of numbers:"):
        frontier_picture(PLAIN, {"layers": [bad]}, MEASURES, "title", path)
    assert not list(tmp_path.iterdir())


def test_a_network_far_worse_than_the_plain_ones_does_not_stretch_the_panel(tmp_path: Path) -> None:
    far = {"layers": [*SHARING["layers"], spot("far", 300, 49.0, 51.0)]}
    frontier_picture(PLAIN, far, {"nll": "NLL"}, "title", tmp_path / "far.svg")
    written = re.findall(r"<!-- (.*?) -->", (tmp_path / "far.svg").read_text(encoding="utf-8"))
    assert "↑ 50 ± 1" in written
    heights = [float(text) for text in written if re.fullmatch(r"\d+\.\d+", text)]
    assert heights
    assert max(heights) < 3
