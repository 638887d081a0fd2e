"""The description of a table that is shown when it is read."""

import csv
from pathlib import Path
from typing import Any

import pytest

from bayes_share.data.tables.load import load_table


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def table(path: Path) -> Path:
    count = range(100)
    return write(
        path / "t.csv",
        {
            "day": [f"2020-01-{1 + i // 5:02d}" for i in count],
            "area": ["" if i % 10 == 0 else i + 0.5 for i in count],
            "city": [["Bonn", "Ulm\x1b"][i % 2] for i in count],
            "name": [f"row {i}" for i in count],
            "who": [f"p{i // 4}" for i in count],
            "sold": [["no", "yes"][i % 4 == 0] for i in count],
            "price": [i / 8 for i in count],
        },
    )


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            {"target": "price"},
            [
                "t.csv: 100 rows, 70 training, 10 validation, 20 test",
                "target 'price': numbers from 0 to 12.375; likelihood normal",
                "1 number (area), 1 date (day), 3 categories (city, who, sold); not used: 'name' (all texts differ)",
                "missing values: area (10)",
            ],
        ),
        (
            {"target": "sold", "split_by": "day", "id_column": "name"},
            [
                "t.csv: 100 rows, 70 training, 10 validation, 20 test; split by time, 'day': training 2020-01-01 to "
                "2020-01-14; validation 2020-01-15 to 2020-01-16; test 2020-01-17 to 2020-01-20",
                "target 'sold': 2 classes, no (75%), yes (25%); likelihood bernoulli",
                "not used: 'day' (split_by), 'name' (id_column)",
                "missing values: area (10)",
            ],
        ),
        (
            {"target": "price", "split_by": "who"},
            ["split by groups, 'who': 17 training, 3 validation, 5 test", "price", "not used: 'name'", "area (10)"],
        ),
    ],
)
def test_the_description_summarises_rows_target_inputs_and_missing_values(
    tmp_path: Path, options: dict[str, str], lines: list[str]
) -> None:
    said = load_table(table(tmp_path), **options).description  # type: ignore[arg-type]
    assert len(said) == len(lines)
    for line, wanted in zip(said, lines, strict=True):
        assert wanted in line
        assert line.isprintable()
