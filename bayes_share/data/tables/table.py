"""A table as it is in a file: named columns of texts, and where each row is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from bayes_share.errors import InputError, option
from bayes_share.io.terminal import listed, printable

Kind = Literal["number", "date", "boolean", "text"]
"""What the values of a column are."""

_LONGEST = 60  # characters of a name or a value in a message

# Those of pandas, and the question mark of the UCI repository.
_MISSING = {"?", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"}
_MISSING |= {"NA", "NULL", "NaN", "None", "n/a", "nan", "null"}


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a table that one file holds.

    Attributes:
        path: the file.
        num_rows: how many.
        lines: the line of the text file that each row begins in; empty where there are no lines.
    """

    path: Path
    num_rows: int
    lines: Sequence[int] = ()

    def place(self, row: int) -> str:
        """Where a row is, for a message; rows are counted from 1, without the names of the columns."""
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{printable(self.path)}, row {row + 1}{line}"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of texts.

    Attributes:
        name: of the column.
        texts: one for each row; empty where the value is missing.
        rows: where they are, in order.
        declared: what the file says that they are; None where it does not.
    """

    name: str
    texts: list[str]
    rows: tuple[Rows, ...]
    declared: Kind | None = None

    def fault(self, row: int, problem: str) -> InputError:
        """The error for one value.

        Args:
            row: its index.
            problem: follows the place and the value.
        """
        for rows in self.rows:
            if row < rows.num_rows:
                break
            row -= rows.num_rows
        return InputError(f"{rows.place(row)}, column {quoted(self.name)}: {problem}")

    def error(self, problem: str) -> InputError:
        """The error for the column as a whole."""
        return InputError(f"{self.where}, column {quoted(self.name)}: {problem}")

    @property
    def where(self) -> str:
        """The files, for a message."""
        return listed(str(rows.path) for rows in self.rows)

    def at(self, indices: Iterable[int]) -> list[str]:
        """The texts of some rows."""
        return [self.texts[index] for index in indices]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length, from one file or several.

    Attributes:
        columns: by name, in the file's order.
        rows: where the rows are.
    """

    columns: dict[str, Column]
    rows: tuple[Rows, ...]

    @classmethod
    def of(cls, cells: dict[str, list[str]], rows: Rows, kinds: dict[str, Kind] | None = None) -> "Table":
        """A table from a reader's texts; what stands for a missing value becomes empty.

        Args:
            cells: by the name of the column.
            rows: where they are.
            kinds: of the columns, where the file says them.
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
        """A column by its name.

        Args:
            name: of the column.
            role: what it is to be, such as the option that names it, for the message.

        Raises:
            InputError: there is none; names the nearest, and those that there are.
        """
        if name in self.columns:
            return self.columns[name]
        near = get_close_matches(name[:_LONGEST], [other for other in self.columns if len(other) <= _LONGEST], n=1)
        hint = f"did you mean {quoted(near[0])}? It has" if near else "it has"
        purpose = f" for {role}" if role else ""
        raise InputError(f"{self.where}: there is no column {quoted(name)}{purpose}: {hint} {listed(self.columns)}")

    def names(self, id_column: str | None = None) -> tuple[str, ...]:
        """Names of the rows: their numbers in their file, from 1, or the texts of a column.

        Raises:
            InputError: there is no such column, or a value in it is missing.
        """
        if id_column is None:
            return tuple(str(row + 1) for rows in self.rows for row in range(rows.num_rows))
        column = self.column(id_column, option("id_column"))
        check_complete(column, "each row must have an id")
        return tuple(column.texts)


def stacked(tables: Sequence[Table]) -> Table:
    """The rows of several tables in one, with the columns in the order of the first.

    Raises:
        InputError: the tables have different columns, or a column is of different kinds.
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
    """Raise an InputError where a value of a column is missing; names the first row.

    Args:
        column: to look at.
        need: what each row needs, as the end of the sentence.
    """
    if "" in column.texts:
        count = column.texts.count("")
        rows = "this row" if count == 1 else f"this and {count - 1:,} more rows"
        raise column.fault(column.texts.index(""), f"the value is missing in {rows}; {need}")


def quoted(text: str) -> str:
    """A name or a value in a message: safe to show and not too long."""
    return f"'{printable(text, _LONGEST)}'"


def _present(text: str) -> str:
    text = text.strip()
    return "" if text in _MISSING else text
