"""Figures with hostile names are valid files, and show the names as plain text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
import torch
from hostile import NAMES
from random_predictions import make

from bayes_share.evaluation.convergence_curves import Curve, convergence_picture
from bayes_share.evaluation.forest_plot import factor_forest
from bayes_share.evaluation.pareto import Spot, frontier_picture
from bayes_share.evaluation.pictures import reliability_picture
from bayes_share.evaluation.seed_statistics import Estimate
from bayes_share.evaluation.style import label

CURVE = Curve([1.0, 2.0], [1.0, 2.0], [0.5, 0.4], [0.1, 0.1])


def spot(name: str, parameters: int) -> Spot:
    return Spot(name, parameters, {"nll": Estimate(1.0 / parameters, 0.01, 2)})


def convergence(names: Sequence[str], path: Path) -> None:
    convergence_picture({names[0]: dict.fromkeys(names, CURVE)}, "validation_nll", names[0], path)


def frontier(names: Sequence[str], path: Path) -> None:
    spots = [spot(name, 10 + number) for number, name in enumerate(names)]
    frontier_picture(spots, {names[0]: spots}, {"nll": names[0]}, names[0], path)


PICTURES = {
    "reliability": lambda names, path: reliability_picture(dict.fromkeys(names, make()), path),
    "convergence": convergence,
    "forest": lambda names, path: factor_forest(dict.fromkeys(names, torch.ones(2, 2, 3)), path),
    "frontier": frontier,
}
SIX_EACH = [list(NAMES.values())[i : i + 6] for i in range(0, len(NAMES), 6)]  # as many as a picture has colours


@pytest.fixture
def _their_own_settings() -> Iterator[None]:
    """Settings that a user's matplotlibrc may contain."""
    with mpl.rc_context({"text.usetex": True, "axes.formatter.use_mathtext": True}):
        yield


def words(path: Path) -> list[str]:
    """The texts of an SVG. matplotlib draws them as outlines, with the text in a comment above each."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    return [(node.text or "").strip() for node in ElementTree.parse(path, parser).iter() if callable(node.tag)]


@pytest.mark.usefixtures("_their_own_settings")
@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("names", SIX_EACH, ids=lambda names: repr(names[0][:20]))
def test_pictures_with_hostile_names_are_valid_files(kind: str, names: Sequence[str], tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    PICTURES[kind](names, path)
    said = words(path)
    assert all(text.replace("\n", "").isprintable() for text in said)
    assert not any("mathdefault" in text or "times10" in text for text in said)


@pytest.mark.parametrize("name", ["_hidden", "_nolegend_", "$x$ costs $5"])
@pytest.mark.parametrize(("kind", "places"), [("convergence", 3), ("frontier", 4)])
def test_a_printable_name_is_unchanged_in_the_legend(kind: str, places: int, name: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.svg"
    PICTURES[kind]([name], path)
    assert sum(name in text for text in words(path)) == places  # titles, an axis, and the legend


def test_a_label_is_short_and_keeps_its_end() -> None:
    text = label("run " + "x" * 100_000 + " last", 30)
    assert max(map(len, text.split("\n"))) <= 30
    assert len(text.split("\n")) <= 5
    assert text.startswith("run")
    assert text.endswith("last")
