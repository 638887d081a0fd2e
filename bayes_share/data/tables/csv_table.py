"""Read tables from CSV files in UTF-8, with the names of the columns in the first line."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bayes_share.data.tables.table import Rows, Table, quoted
from bayes_share.errors import InputError
from bayes_share.io.reading import check_file, reading
from bayes_share.io.terminal import printable

_WHAT = "a CSV file"
_LARGEST = 2**30  # bytes; as Python strings, the content takes several times as much memory
_LONGEST_LINE = 2**24  # characters
_DELIMITERS = ",;\t"


def read_csv(path: Path) -> Table:
    """Read a CSV file. The separator is the most frequent of comma, semicolon and tab in the first line.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing, empty, too large or not UTF-8, column names are empty or duplicated, or a row
            has another number of values than there are columns. The message says where.
    """
    check_file(path, _WHAT)
    with reading(path, _WHAT), open(path, encoding="utf-8-sig", newline="") as file:
        if (size := path.stat().st_size) > _LARGEST:
            raise InputError(f"{printable(path)} has {size:,} bytes; a table may have {_LARGEST:,}")
        try:
            return _read(file, path)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{printable(path)}, line {_undecodable(path)}: it is not UTF-8; save the file in this encoding"
            ) from error


def _read(file: IO[str], path: Path) -> Table:
    first = next(_lines(file, path), "")
    file.seek(0)
    reader = csv.reader(_lines(file, path), delimiter=_delimiter(first), strict=True)
    records = _records(reader, path)
    _, header = next(records, (0, []))
    if not header:
        raise InputError(f"{printable(path)} is empty; its first line must have the names of the columns")
    names = _names(header, path)
    columns: list[list[str]] = [[] for _ in names]
    lines: list[int] = []
    for line, cells in records:
        if len(cells) != len(names):
            raise InputError(
                f"{printable(path)}, row {len(lines) + 1} (line {line}): it has {_count(len(cells), 'value')}, but "
                f"there are {_count(len(names), 'column')}; a value that contains the separator needs quotation marks"
            )
        lines.append(line)
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    if not lines:
        raise InputError(f"{printable(path)} has column names but no rows")
    return Table.of(dict(zip(names, columns, strict=True)), Rows(path, len(lines), lines))


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(_LONGEST_LINE + 1):
        number += 1
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{printable(path)}, line {number}: it is longer than {_LONGEST_LINE:,} characters")
        if "\0" in line:
            raise InputError(
                f"{printable(path)}, line {number}: it has a byte 0, so the file is not a CSV file in UTF-8"
            )
        yield line


def _records(reader: "csv.Reader", path: Path) -> Iterator[tuple[int, list[str]]]:  # type: ignore[name-defined]
    """Yield the first line number and the cells of each record. Empty lines are skipped."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{printable(path)}, line {line}: it cannot be read as CSV ({error})") from error
        if cells:
            yield line, cells


def _delimiter(line: str) -> str:
    """Return the most frequent separator of a line outside quotation marks, or a comma if there is none."""
    return max(_DELIMITERS, key=lambda delimiter: len(next(csv.reader([line], delimiter=delimiter), [])))


def _names(header: list[str], path: Path) -> list[str]:
    names = [name.strip() for name in header]
    for number, name in enumerate(names, 1):
        if not name:
            raise InputError(
                f"{printable(path)}: column {number} of {len(names)} has no name; give it one in the first line "
                f"(pandas writes no column for its index with index=False)"
            )
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        numbers = [number for number, name in enumerate(names, 1) if name == twice]
        raise InputError(
            f"{printable(path)}: columns {numbers[0]} and {numbers[1]} are both called {quoted(twice)}; rename one"
        )
    return names


def _undecodable(path: Path) -> int:
    """Return the number of the first line that is not UTF-8."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
