"""Export of a report as JSON and CSV, and of its drawings as PNG and SVG."""

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path

from bayes_share.evaluation.style import save_figure
from bayes_share.io.csv_file import write_table
from bayes_share.io.files import write_atomically
from bayes_share.reports.document import Figure, Panel, Report, Table

_LONGEST = 180  # maximum length of a file name in bytes, without suffixes


def write_json(report: Report, path: Path) -> None:
    """Write all tables as JSON: lists of rows, with values and errors.

    Infinite numbers, such as the r-hat of chains that do not move, and NaN become null. Non-ASCII characters are
    escaped, so that any name can be written.

    Raises:
        RunError: if the file cannot be written.
    """
    tables = {
        table.name: [
            {
                key: _finite(cell.value)
                if cell.error is None
                else {"value": _finite(cell.value), "error": _finite(cell.error)}
                for key, cell in row.items()
            }
            for row in table.rows
        ]
        for table in report.blocks(Table)
    }
    content = {
        "title": report.title,
        "subtitle": report.subtitle,
        "lead": list(report.sections[0].lead),
        "tables": tables,
    }
    write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_csv(report: Report, path: Path) -> None:
    """Write all numbers as CSV, one per row, with the columns table, of (the row of the table), measure, value, error.

    Raises:
        RunError: if the file cannot be written.
    """
    write_table(path, chain([("table", "of", "measure", "value", "error")], _lines(report)))


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write all drawings as PNG and SVG, with legends.

    Returns:
        The paths of the files.

    Raises:
        RunError: if a file cannot be written.
    """
    paths = []
    for panel, name in file_names(report).items():
        drawing = panel.draw(True)
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            save_figure(drawing, path, dpi=200)
            paths.append(path)
    return paths


def figure_paths(report: Report, folder: Path) -> list[Path]:
    """Return the paths that `write_figures` writes to."""
    return [folder / f"{name}.{kind}" for name in file_names(report).values() for kind in ("png", "svg")]


def file_names(report: Report) -> dict[Panel, str]:
    """Return a unique name for each drawing that is valid in file names and HTML ids.

    Names are unique even on case-insensitive file systems, and are cut to stay below the usual limit of 255 bytes.
    """
    names: dict[Panel, str] = {}
    for figure in report.blocks(Figure):
        for panel in figure.panels:
            alike = unicodedata.normalize("NFKC", panel.name).casefold()
            plain = _start(re.sub(r"[^\w-]+", "-", alike)).strip("-") or "figure"
            numbered = (f"{plain}-{number}" for number in count(2))
            taken = set(names.values())
            names[panel] = next(name for name in chain([plain], numbered) if name not in taken)
    return names


def _start(name: str) -> str:
    return name.encode()[:_LONGEST].decode(errors="ignore")


def _finite(value: float | int | str | None) -> float | int | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _lines(report: Report) -> Iterator[Sequence[object]]:
    for table in report.blocks(Table):
        for row in table.rows:
            what = [
                column.key for column in table.columns if column.key in row and isinstance(row[column.key].value, str)
            ]
            of = "/".join(str(row[key].value) for key in what)
            for key, cell in row.items():
                if key not in what and cell.value is not None:
                    yield [table.name, of, key, cell.value, cell.error]
