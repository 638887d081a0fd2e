"""A summary of how a table was read, in a few lines for the user."""

from collections import Counter

from bayes_share.data.tables.column_types import kind_of, numbers, seconds
from bayes_share.data.tables.columns import InputColumn
from bayes_share.data.tables.division import Indices
from bayes_share.data.tables.encoder import TableEncoder
from bayes_share.data.tables.table import Column, Table, quoted
from bayes_share.data.tables.target import Target
from bayes_share.io.terminal import listed, printable

_PARTS = ("training", "validation", "test")
_LONGEST = 100  # characters of a list of names
_MOST_CLASSES = 6
_KINDS = {"number": ("number", "numbers"), "date": ("date", "dates"), "category": ("category", "categories")}


def described(
    where: str, table: Table, encoder: TableEncoder, others: dict[str, str], indices: Indices, split_by: str | None
) -> tuple[str, ...]:
    """Describe the rows and their split, the target, the inputs and the missing values, in one line each.

    Args:
        where: the name of the table.
        table: all rows.
        encoder: the fitted encoder.
        others: columns that are not inputs because an option names them, with the name of the option.
        indices: the rows of each part.
        split_by: the column that the rows were split by, or None.
    """
    rows = ", ".join(f"{len(part):,} {name}" for part, name in zip(indices, _PARTS, strict=True))
    how = "" if split_by is None else f"; {_division(table.column(split_by), indices)}"
    target = table.column(encoder.target.name)
    return (
        f"{where}: {table.num_rows:,} rows, {rows}{how}",
        f"target {quoted(target.name)}: {_values(target, encoder.target)}",
        f"inputs: {_inputs(encoder.inputs)}{_left_out(table, encoder, others)}",
        f"missing values: {_missing(table, encoder.inputs)}",
    )


def _division(column: Column, indices: Indices) -> str:
    """Describe which dates or groups are in which part."""
    kind, name = kind_of(column), quoted(column.name)
    parts = {part: rows for part, rows in zip(_PARTS, indices, strict=True) if len(rows)}
    if kind in ("number", "date"):
        values = numbers(column) if kind == "number" else seconds(column)
        ends = {name: (rows[values[rows].argmin()], rows[values[rows].argmax()]) for name, rows in parts.items()}
        spans = "; ".join(
            f"{part} {' to '.join(printable(column.texts[row], 30) for row in rows)}" for part, rows in ends.items()
        )
        return f"split by time, {name}: {spans}"
    groups = ", ".join(f"{len(set(column.at(rows.tolist()))):,} {part}" for part, rows in parts.items())
    return f"split by groups, {name}: {groups}"


def _values(column: Column, target: Target) -> str:
    if target.class_names:
        names = target.shown_classes
        counts = Counter(target.encode(column).long().tolist())
        most = sorted(label for label, _ in counts.most_common(_MOST_CLASSES))
        shares = [f"{names[label]} ({counts[label] / len(column.texts):.0%})" for label in most]
        more = ["..."] if len(names) > _MOST_CLASSES else []
        kind = f"{len(names)} classes, {listed([*shares, *more])}"
    else:
        values = numbers(column)
        what = "counts" if target.likelihood == "poisson" else "numbers"
        kind = f"{what} from {values.min():.6g} to {values.max():.6g}"
    return f"{kind}; likelihood {target.likelihood}"


def _inputs(inputs: tuple[InputColumn, ...]) -> str:
    """List the columns of each kind."""
    found = []
    for kind, (one, several) in _KINDS.items():
        names = [column.name for column in inputs if column.kind == kind]
        if names:
            found.append(f"{len(names)} {one if len(names) == 1 else several} ({listed(names, _LONGEST)})")
    return ", ".join(found)


def _left_out(table: Table, encoder: TableEncoder, others: dict[str, str]) -> str:
    used = {encoder.target.name, *(column.name for column in encoder.inputs)}
    left = [f"{quoted(name)} ({others.get(name, 'all texts differ')})" for name in table.columns if name not in used]
    return f"; not used: {', '.join(left)}" if left else ""


def _missing(table: Table, inputs: tuple[InputColumn, ...]) -> str:
    counts = {column.name: table.column(column.name).texts.count("") for column in inputs}
    some = [f"{name} ({count:,})" for name, count in counts.items() if count]
    return listed(some, _LONGEST) if some else "none"
