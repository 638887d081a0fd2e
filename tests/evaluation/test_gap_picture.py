"""The figure of shares against costs: it is complete, and discs do not overlap."""

import math
from itertools import combinations
from pathlib import Path

import pytest

from bayes_share.errors import InputError
from bayes_share.evaluation import gap_picture as module
from bayes_share.evaluation.gap import Share
from bayes_share.evaluation.gap_picture import Mark, gap_picture
from bayes_share.evaluation.seed_statistics import Interval


def mark(label: str, cost: float, value: float, half: float | None = 0.05, family: str = "a") -> Mark:
    interval = None if half is None else Interval(value, value - half, value + half, half)
    return Mark(label, family, cost, Share(value, interval, 3))


CROWD = [mark(f"row {i}", 1.0 + 0.01 * (i % 3), 0.7 + 0.02 * i, family="ab"[i % 2]) for i in range(12)]


def test_the_picture_contains_every_name_share_and_family(tmp_path: Path) -> None:
    marks = [*CROWD, mark("far off $x$", 20.0, -9.634, half=None, family="c")]
    gap_picture(marks, "numbers", "share", "a title", tmp_path / "gap.svg")
    text = (tmp_path / "gap.svg").read_text()
    for words in ("row 11: 0.92", "far off $x$: -9.63", "numbers", "a title"):
        assert f"<!-- {words}" in text or f"{words} -->" in text, words
    gap_picture(marks, "numbers", "share", "a title", tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "gap.svg").read_bytes()
    gap_picture(marks, "numbers", "share", "a title", tmp_path / "gap.png")
    assert (tmp_path / "gap.png").read_bytes().startswith(b"\x89PNG")


def test_discs_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[float, float]] = []
    apart = module._apart

    def watched(axes, marks):  # type: ignore[no-untyped-def]
        places = apart(axes, marks)
        for one, place in zip(marks, places, strict=True):
            x, y = axes.transData.transform((place, one.share.value)) * 72 / axes.figure.dpi
            found.append((float(x), float(y)))
        return places

    monkeypatch.setattr(module, "_apart", watched)
    crowd = [mark(f"row {i}", 1.0, 0.7 + 0.01 * i, half=0.05 if i % 3 else None) for i in range(12)]
    gap_picture(crowd, "numbers", "share", "a title", tmp_path / "gap.png")
    assert len(found) == len(crowd)
    assert min(math.dist(one, other) for one, other in combinations(found, 2)) > 2 * module._RADIUS - 0.01


@pytest.mark.parametrize(
    ("marks", "name", "words"),
    [
        ([], "gap.png", "there are no shares to draw"),
        ([mark("free", 0.0, 1.0)], "gap.png", "costs must be above 0, and the cost of free is 0.0"),
        ([mark("x", 1.0, 1.0, family=str(i)) for i in range(7)], "gap.png", "at most 6 families, not 7"),
        (CROWD, "gap.pdf", "must end in .png or .svg"),
    ],
)
def test_invalid_marks_are_rejected(marks: list[Mark], name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        gap_picture(marks, "numbers", "share", "a title", tmp_path / name)
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())
