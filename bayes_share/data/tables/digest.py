"""Digests that identify the tables a run was trained and tested on."""

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
    """Compute a digest of the names and values of all columns of each part, in order.

    It depends on values, not on their spelling or the file format: quotation marks, 1.5 or 1.50, CSV or Parquet.

    Args:
        parts: the tables that were read, before they are split, each with the name of its part.
    """
    found = sha256()
    for part, table in parts:
        found.update(json.dumps([part, table.num_rows, list(table.columns)]).encode())
        for column in table.columns.values():
            found.update(_values(column))
    return found.hexdigest()


def rows_digest(table: Table, rows: Sequence[int], target: Target) -> str:
    """Compute a digest of the names and values of all columns in some rows, and of the target.

    It does not depend on the other rows, so it is the same for one test file with different training files.

    Args:
        table: the table that contains the rows.
        rows: the indices of the rows, in order.
        target: the target, whose name and classes enter the digest.
    """
    found = sha256(json.dumps([len(rows), target.name, target.class_names]).encode())
    for name, column in sorted(table.columns.items()):
        found.update(json.dumps(name).encode())
        found.update(_values(Column(name, column.at(rows), column.rows, column.declared)))
    return found.hexdigest()


def _values(column: Column) -> bytes:
    with suppress(InputError):  # row names may be any text, for example numbers with a comma
        kind = kind_of(column)
        if kind in ("number", "date"):
            values = numbers(column) if kind == "number" else seconds(column)
            return kind.encode() + np.where(np.isnan(values), np.nan, values + 0.0).astype("<f8").tobytes()
    return json.dumps(column.texts).encode()  # JSON is ASCII for any texts
