"""Runs on tables are compared only if they were tested on the same rows."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from driver import command, one_line, snapshot

from bayes_share.cli import main
from bayes_share.runs.loading import load_run

Cells = list[list[str]]
Change = Callable[[Cells, Cells], tuple[Cells, Cells]]
FAST = ["--epochs", "1", "--model", "mlp1_8", "--no-progress"]


def cells(count: int = 60) -> Cells:
    """Return the cells of a table: a number and a category as inputs, a class and a number as targets."""
    return [[str(i % 11), "abc"[i % 3], "xyz"[i % 3 if i % 5 else 0], str(i * 0.7)] for i in range(count)]


def write(folder: Path, train: Cells, test: Cells, names: str = "size,kind,city,price") -> Path:
    folder.mkdir()
    for part, lines in (("train", train), ("test", test)):
        (folder / f"{part}.csv").write_text("\n".join([names, *map(",".join, lines)]))
    return folder


def fit(folder: Path, out: Path, target: str, *more: str) -> Path:
    assert main(["fit", "map", "--data", f"csv:{folder}", "--target", target, *FAST, *more, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the run that predicts a column of the unchanged table."""
    folder = write(tmp_path_factory.mktemp("first") / "table", cells(), cells(21))
    return cache(lambda target: fit(folder, folder.parent / target, target))


def paths_with_other_run(one: Path, target: str, changed: Change, tmp_path: Path) -> list[str]:
    """Return the paths of a run and of another run, which was trained and tested on changed rows."""
    return [str(one), str(fit(write(tmp_path / "table", *changed(cells(), cells(21))), tmp_path / "other", target))]


@pytest.mark.parametrize("target", ["price", "city"])
def test_runs_with_equal_test_rows_are_compared_despite_other_training_rows(
    target: str, first: Callable[[str], Path], tmp_path: Path
) -> None:
    def changed(train: Cells, test: Cells) -> tuple[Cells, Cells]:
        # Other means and standard deviations, and another category.
        more = [[str(3 * i), "d", "xyz"[i % 3], str(-i * 0.7)] for i in range(40)]
        return train[5:] + more, [[f"{float(size):.2f}", *others] for size, *others in test]

    runs = paths_with_other_run(first(target), target, changed, tmp_path)
    assert main(["evaluate", *runs]) == 0
    assert main(["report", *runs, "-o", str(tmp_path / "r.html")]) == 0


@pytest.mark.parametrize(
    ("target", "changed"),
    [
        ("price", lambda train, test: (train, [[str(1 + int(test[0][0])), *test[0][1:]], *test[1:]])),
        ("price", lambda train, test: (train, [[*test[0][:3], "99.5"], *test[1:]])),
        ("price", lambda train, test: (train, [test[1], test[0], *test[2:]])),
        ("city", lambda train, test: (train, [[*test[0][:2], "y", test[0][3]], *test[1:]])),
        ("city", lambda train, test: (train + 3 * [["1", "a", "w", "2.5"]], test)),
    ],
    ids=["another input", "another target", "another order", "another class", "another set of classes"],
)
def test_runs_with_other_test_rows_are_not_compared(
    target: str,
    changed: Change,
    first: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = paths_with_other_run(first(target), target, changed, tmp_path)
    capsys.readouterr()
    for words in (["evaluate", *runs], ["report", *runs, "-o", str(tmp_path / "r.html")]):
        assert main(words) == 2
        assert "), and cannot be compared in one table: evaluate them separately" in capsys.readouterr().err


def test_runs_with_another_target_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [[*line, line[3]] for line in cells()]
    folder = write(tmp_path / "a", lines, lines[:21], "size,kind,city,price,twin")
    runs = [str(fit(folder, tmp_path / target, target)) for target in ("price", "twin")]
    assert main(["evaluate", *runs]) == 2
    assert "), and cannot be compared in one table: evaluate them separately" in capsys.readouterr().err


def test_outputs_must_not_become_part_of_the_data(first: Callable[[str], Path]) -> None:
    run = first("price")
    table = run.parent / "table"
    before = snapshot(table)
    for words in (
        ["predict", run, table / "test.csv", "-o", table / "validation.csv"],
        ["report", run, "-o", run.parent / "r.html", "--csv", table / "val.csv"],
        ["report", run, "-o", run.parent / "r.html", "--json", table / "validation.csv"],
        ["report", run, "-o", table / "Validation.csv"],
    ):
        assert "would become part of the data csv:" in one_line(command(*words), 2)
    assert snapshot(table) == before
    (table / "validation.csv").mkdir()  # a folder is not read as a part of the table
    assert len(load_run(run).data.test) == 21
    (table / "validation.csv").rmdir()
