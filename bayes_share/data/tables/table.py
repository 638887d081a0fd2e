"""A table as stored in files: named columns of texts, and the position of each row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from bayes_share.errors import InputError, option
from bayes_share.io.terminal import listed, printable

Kind = Literal["number", "date", "boolean", "text"]
"""The kind of a column's values."""

_LONGEST = 60  # characters of a name or a value in a message

# The missing values of pandas, and the question mark of the UCI repository.
_MISSING = {"?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
_MISSING |= {"NA", "NULL", "NaN", "None", "n/a", "nan", "null"}


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a table that come from one file.

    Attributes:
        path: the file.
        num_rows: the number of rows.
        lines: the first line of each row in a text file, or empty for other files.
    """

    path: Path
    num_rows: int
    lines: Sequence[int] = ()

    def place(self, row: int) -> str:
        """Return the position of a row for a message. Rows are counted from 1, without the header."""
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{printable(self.path)}, row {row + 1}{line}"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of texts.

    Attributes:
        name: the name of the column.
        texts: the value of each row; empty if it is missing.
        rows: the rows of each file, in order.
        declared: the kind that the file declares, or None.
    """

    name: str
    texts: list[str]
    rows: tuple[Rows, ...]
    declared: Kind | None = None

    def fault(self, row: int, problem: str) -> InputError:
        """Return the error for one value.

        Args:
            row: the index of the row.
            problem: the description of the problem, which follows the position and the column.
        """
        for rows in self.rows:
            if row < rows.num_rows:
                break
            row -= rows.num_rows
        return InputError(f"{rows.place(row)}, column {quoted(self.name)}: {problem}")

    def error(self, problem: str) -> InputError:
        """Return the error for the column as a whole."""
        return InputError(f"{self.where}, column {quoted(self.name)}: {problem}")

    @property
    def where(self) -> str:
        """The files, for a message."""
        return listed(str(rows.path) for rows in self.rows)

    def at(self, indices: Iterable[int]) -> list[str]:
        """Return the texts of some rows."""
        return [self.texts[index] for index in indices]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length, from one or several files.

    Attributes:
        columns: the columns by name, in the order of the file.
        rows: the rows of each file, in order.
    """

    columns: dict[str, Column]
    rows: tuple[Rows, ...]

    @classmethod
    def of(cls, cells: dict[str, list[str]], rows: Rows, kinds: dict[str, Kind] | None = None) -> "Table":
        """Make a table from the texts of a file. Markers of missing values, such as NA, become empty texts.

        Args:
            cells: the texts of each column by its name.
            rows: the rows of the file.
            kinds: the kinds of the columns, if the file declares them.
        """
        kinds = kinds or {}
        columns = {
            name: Column(name, [_present(text) for text in texts], (rows,), kinds.get(name))
            for name, texts in cells.items()
        }
        return cls(columns, (rows,))

    @property
    def num_rows(self) -> int:
        """The number of rows."""
        return sum(rows.num_rows for rows in self.rows)

    @property
    def where(self) -> str:
        """The files, for a message."""
        return listed(str(rows.path) for rows in self.rows)

    def column(self, name: str, role: str = "") -> Column:
        """Return a column by name.

        Args:
            name: the name of the column.
            role: the purpose of the column for messages, such as the option that names it.

        Raises:
            InputError: the column does not exist. The message suggests the closest name and lists all.
        """
        if name in self.columns:
            return self.columns[name]
        near = get_close_matches(name[:_LONGEST], [other for other in self.columns if len(other) <= _LONGEST], n=1)
        hint = f"did you mean {quoted(near[0])}? It has" if near else "it has"
        purpose = f" for {role}" if role else ""
        raise InputError(f"{self.where}: there is no column {quoted(name)}{purpose}: {hint} {listed(self.columns)}")

    def names(self, id_column: str | None = None) -> tuple[str, ...]:
        """Return the names of the rows: the texts of `id_column`, or row numbers in each file from 1.

        Raises:
            InputError: the column does not exist, or a value in it is missing.
        """
        if id_column is None:
            return tuple(str(row + 1) for rows in self.rows for row in range(rows.num_rows))
        column = self.column(id_column, option("id_column"))
        check_complete(column, "each row must have an id")
        return tuple(column.texts)


def stacked(tables: Sequence[Table]) -> Table:
    """Concatenate the rows of several tables. The columns are in the order of the first table.

    Raises:
        InputError: the tables have different columns, or a column has different kinds.
    """
    first, *others = tables
    for other in others:
        for one, lacks in ((first, other), (other, first)):
            if missing := [name for name in one.columns if name not in lacks.columns]:
                raise InputError(f"{lacks.where}: there is no column {quoted(missing[0])}, which {one.where} has")
        for name, column in first.columns.items():
            if (kind := other.columns[name].declared) != column.declared:
                raise InputError(
                    f"{other.where}, column {quoted(name)}: its values are {kind or 'text of a CSV file'}, but "
                    f"{column.declared or 'text of a CSV file'} in {first.where}; make them of one type"
                )
    rows = tuple(rows for table in tables for rows in table.rows)
    columns = {
        name: Column(name, [text for table in tables for text in table.columns[name].texts], rows, column.declared)
        for name, column in first.columns.items()
    }
    return Table(columns, rows)


def check_complete(column: Column, need: str) -> None:
    """Raise an InputError if a value of a column is missing. The message names the first row.

    Args:
        column: the column to check.
        need: what each row must have, appended to the message.
    """
    if "" in column.texts:
        count = column.texts.count("")
        rows = "this row" if count == 1 else f"this and {count - 1:,} more rows"
        raise column.fault(column.texts.index(""), f"the value is missing in {rows}; {need}")


def quoted(text: str) -> str:
    """Quote a name or a value for a message, printable and shortened."""
    return f"'{printable(text, _LONGEST)}'"


def _present(text: str) -> str:
    text = text.strip()
    return "" if text in _MISSING else text
