"""Read tables from Parquet files, with pyarrow, which is an optional dependency."""

from pathlib import Path
from typing import Any

from bayes_share.data.tables.table import Kind, Rows, Table, quoted
from bayes_share.errors import InputError
from bayes_share.io.reading import check_file, reading
from bayes_share.io.terminal import printable

_WHAT = "a Parquet file"
_MOST_CELLS = 2**26  # a small file may compress any number of equal values
_INDEX = "__index_level_"  # the prefix of pandas's index columns
_EXACT = 2**53  # integers up to this are exact in float64


def read_parquet(path: Path) -> Table:
    """Read a Parquet file. The kinds of the columns follow from their Parquet types.

    Args:
        path: the file.

    Raises:
        InputError: pyarrow is not installed; the file is missing, damaged, empty or too large; or a column has another
            type than numbers, text, booleans or dates.
    """
    check_file(path, _WHAT)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{printable(path)}: Parquet files require pyarrow; install it with pip install 'bayes-share[parquet]'"
        ) from error
    with reading(path, _WHAT), parquet.ParquetFile(path) as file:
        num_rows, names = file.metadata.num_rows, list(file.schema_arrow.names)
        names = [name for name in names if not name.startswith(_INDEX)]
        if num_rows * max(len(names), 1) > _MOST_CELLS:
            raise InputError(f"{printable(path)} has {num_rows:,} rows of {len(names):,} columns, too many for memory")
        if not (num_rows and names):
            raise InputError(f"{printable(path)} has no {'rows' if names else 'columns'}")
        if len({name.strip() for name in names} - {""}) < len(names):
            raise InputError(f"{printable(path)}: column names must be distinct")
        table = file.read(columns=names)
        read = {name.strip(): _column(table.column(name), name, path) for name in names}
    cells = {name: texts for name, (_, texts) in read.items()}
    return Table.of(cells, Rows(path, num_rows), {name: kind for name, (kind, _) in read.items()})


def _column(array: Any, name: str, path: Path) -> tuple[Kind, list[str]]:
    """Return the kind of a column, and its values as texts, written as in a CSV file."""
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    kind = array.type
    if types.is_null(kind):
        return "text", [""] * len(array)
    if types.is_boolean(kind):
        return "boolean", _texts(array, lambda value: str(value).lower())
    if types.is_integer(kind):
        texts = _texts(array, str)
        is_code = any(len(text) > 15 and abs(int(text)) > _EXACT for text in texts)
        return ("text" if is_code else "number"), texts
    if types.is_floating(kind) or types.is_decimal(kind):
        return "number", _texts(array, lambda value: repr(float(value)))
    if types.is_string(kind) or types.is_large_string(kind):
        return "text", _texts(array, str)
    if types.is_timestamp(kind) or types.is_date(kind):
        return "date", _texts(array.cast(pyarrow.timestamp("us"), safe=False), lambda value: value.isoformat())
    raise InputError(
        f"{printable(path)}, column {quoted(name)}: its type is {printable(kind, 60)}, but must be numbers, text, "
        f"booleans or dates"
    )


def _texts(array: Any, text: Any) -> list[str]:
    return ["" if value is None else text(value) for value in array.to_pylist()]
