"""Which table a run was trained and tested on, as one short text: other values have another one."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256

import numpy as np

from bayes_share.data.tables.column_types import kind_of, numbers, seconds
from bayes_share.data.tables.table import Column, Table
from bayes_share.data.tables.target import Target
from bayes_share.errors import InputError


def digest_of(parts: Iterable[tuple[str, Table]]) -> str:
    """A digest of the names and values of all columns, in order, of each part.

    How they are written does not count: quotation marks, 1.5 or 1.50, CSV or Parquet.

    Args:
        parts: the tables that were read, before they are divided, and what each is called.
    """
    found = sha256()
    for part, table in parts:
        found.update(json.dumps([part, table.num_rows, list(table.columns)]).encode())
        for column in table.columns.values():
            found.update(_values(column))
    return found.hexdigest()


def rows_digest(table: Table, rows: Sequence[int], target: Target) -> str:
    """A digest of the names and values of all columns in some rows, and of what is predicted of them.

    It is the same whatever the other rows are, and so for one test file beside several training files.

    Args:
        table: with these rows among others.
        rows: their indices, in order.
        target: of which the name and the classes count.
    """
    found = sha256(json.dumps([len(rows), target.name, target.class_names]).encode())
    for name, column in sorted(table.columns.items()):
        found.update(json.dumps(name).encode())
        found.update(_values(Column(name, column.at(rows), column.rows, column.declared)))
    return found.hexdigest()


def _values(column: Column) -> bytes:
    with suppress(InputError):  # names of rows may be any texts, also ones that look like numbers with a comma
        kind = kind_of(column)
        if kind in ("number", "date"):
            values = numbers(column) if kind == "number" else seconds(column)
            return kind.encode() + np.where(np.isnan(values), np.nan, values + 0.0).astype("<f8").tobytes()
    return json.dumps(column.texts).encode()  # ASCII, whatever the texts are
