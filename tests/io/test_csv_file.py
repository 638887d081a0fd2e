"""CSV files of reports and studies: text is never a formula, and numbers stay numbers."""

import csv
import math
from pathlib import Path

import pytest

from bayes_share.study.results import write_csv


def written(path: Path, value: object) -> tuple[str, str]:
    """Return a cell as written to a study's file, and as a CSV parser reads it."""
    write_csv(path, [{"one": value, "other": 0}])
    text = path.read_text(encoding="utf-8")
    (cell, _) = list(csv.reader(text.splitlines()))[1]
    return text.split("\n")[1].removesuffix(",0"), cell


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-3.2, "-3.2"), (-1, "-1"), (1e-30, "1e-30"), (-math.inf, "-inf"), (math.nan, "nan"), (None, ""), (0.1, "0.1")],
)
def test_a_number_is_written_as_str_gives_it(value: object, shown: str, tmp_path: Path) -> None:
    assert written(tmp_path / "a.csv", value) == (shown, shown)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("SGD, single", "SGD, single"),
        ("a-b=c", "a-b=c"),
        ("=1+1", "'=1+1"),
        ("-3.2", "'-3.2"),  # text that looks like a number
        ("@SUM(A1)", "'@SUM(A1)"),
        ('  "=1+1', "'  \"=1+1"),
        ("\t=1", r"'\t=1"),
        ("\rx", r"'\rx"),
        ("\uff1d1", "'\uff1d1"),
        ("a;=1", "a;'=1"),
        ("a\n=1", r"a\n=1"),
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
        ("\udce9", r"\udce9"),
        ("", ""),
    ],
)
def test_text_is_never_a_formula_and_is_in_one_line(text: str, cell: str, tmp_path: Path) -> None:
    assert written(tmp_path / "a.csv", text)[1] == cell


def test_a_long_text_is_shortened_to_fit_a_cell(tmp_path: Path) -> None:
    assert len(written(tmp_path / "a.csv", "x" * 200_000)[1]) == 32_767


def test_a_table_without_rows_is_an_empty_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [])
    assert (tmp_path / "a.csv").read_bytes() == b""


def test_column_titles_are_escaped_like_text(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"=one": 1, "other": 2}])
    assert (tmp_path / "a.csv").read_text() == "'=one,other\n1,2\n"
