import math
import re
from typing import Any

import pytest
from hostile import NAMES as HOSTILE

from bayes_share.errors import InputError
from bayes_share.evaluation import format_table

ROWS: list[dict[str, Any]] = [
    {
        "run": "map",
        "accuracy": 0.91234,
        "nll": 0.3,
        "brier": 0.12,
        "ece": 0.00004,
        "parameters": 272474,
        "seconds": 9.0,
    },
    {
        "run": "deep ensemble",
        "accuracy": 1.0,
        "nll": 12.5,
        "brier": -0.0,
        "ece": 1,
        "parameters": None,
        "seconds": 86400,
    },
]
NAMES = ["run", "accuracy", "nll", "brier", "ece", "parameters", "seconds"]


def test_plain_table_layout() -> None:
    assert format_table(NAMES, ROWS).splitlines() == [
        "run            accuracy [%]  NLL [nat]   Brier     ECE  parameters  time [s]",
        "-------------  ------------  ---------  ------  ------  ----------  --------",
        "map                   91.23     0.3000  0.1200  0.0000     272,474       9.0",
        "deep ensemble        100.00    12.5000  0.0000  1.0000           –  86,400.0",
    ]


def test_the_markdown_table_has_the_same_cells() -> None:
    lines = format_table(NAMES, ROWS, markdown=True).splitlines()
    plain = format_table(NAMES, ROWS).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert lines[1] == "| :------------ | -----------: | --------: | -----: | -----: | ---------: | -------: |"
    assert [" ".join(row).split() for row in [cells[0], *cells[2:]]] == [
        line.split() for line in [plain[0], *plain[2:]]
    ]
    assert len({len(line) for line in lines}) == 1


def test_unknown_columns_keep_their_key_and_missing_cells_are_dashes() -> None:
    rows: list[dict[str, Any]] = [{"step": 12000, "ratio": 1.23456}, {"ratio": math.nan, "note": "stopped"}]
    assert format_table(["step", "ratio", "note"], rows).splitlines() == [
        "  step  ratio  note",
        "------  -----  -------",
        "12,000  1.235  –",
        "     –    nan  stopped",
    ]


def test_a_pipe_in_a_name_is_escaped_in_markdown() -> None:
    last = format_table(["run"], [{"run": "a|b"}], markdown=True).splitlines()[-1]
    assert last == r"| a\|b |"


@pytest.mark.parametrize("markdown", [False, True])
def test_names_are_on_one_line_and_distinct(markdown: bool) -> None:
    names = list(HOSTILE.values())
    rows: list[dict[str, Any]] = [{"run": name, "x": number, name: 1} for number, name in enumerate(names)]
    lines = format_table(["run", "x", *names[:3]], rows, markdown).splitlines()
    assert len(lines) == 2 + len(names)
    assert all(line.isprintable() and len(line) < 500 for line in lines)
    assert len({line[:106] for line in lines[2:]}) == len(names)
    if markdown:
        assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {6}  # bars that divide cells


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("mlp4_64, a * b, 0.1 ± 0.2 *", "mlp4_64, a * b, 0.1 ± 0.2 *"),  # which are nothing but characters
        ("a [%]", "a [%]"),
        ("__init__", r"\_\_init\_\_"),
        ("*a*", r"\*a\*"),
        ("[a](http://b)", r"[a\](http://b)"),
        ("<b> `c` $d$", r"\<b> \`c\` \$d\$"),
        ("a\\", r"a\\"),
    ],
)
def test_markdown_in_names_is_escaped(name: str, written: str) -> None:
    last = format_table(["run"], [{"run": name}], markdown=True).splitlines()[-1]
    assert last == f"| {written} |"


def test_a_table_without_rows_has_a_header() -> None:
    assert format_table(["run", "nll"], []).splitlines() == ["run  NLL [nat]", "---  ---------"]


def test_a_column_missing_from_all_rows_is_rejected() -> None:
    with pytest.raises(InputError, match="unknown column 'acuracy': did you mean 'accuracy'"):
        format_table(["run", "acuracy"], ROWS)
