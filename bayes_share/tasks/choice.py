"""Choose the task for a data set, and check that its options match."""

from collections.abc import Mapping
from typing import Any

from bayes_share.data import Data
from bayes_share.data.load import is_known, unknown_data_set
from bayes_share.data.tables.load import TableData
from bayes_share.errors import InputError, option
from bayes_share.tasks.contracts import DataSpec, Task
from bayes_share.tasks.images import ImageTask
from bayes_share.tasks.tables import TableTask

_TABLE = "csv"
_OF_TABLES = ("target", "likelihood", "split_by", "id_column", "noise", "noise_beta")
_OF_IMAGES = ("hold_out", "train_images", "image_size")


def is_table(name: str) -> bool:
    """Return whether the name of a data set refers to a table.

    >>> is_table("csv:houses.csv"), is_table("npz:cats.npz")
    (True, False)
    """
    kind, _, path = name.partition(":")
    return kind == _TABLE and bool(path)


def task_of(data: Data | TableData) -> Task:
    """Return the task for loaded data."""
    return TableTask(data) if isinstance(data, TableData) else ImageTask(data)


def spec_of(data: Data | TableData) -> DataSpec:
    """Return the spec of loaded data."""
    return task_of(data).spec


def check_options(data: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check that options apply to the kind of data: images or a table.

    Args:
        data: the name of the data set.
        options: the options by name.
        defaults: the defaults of the same options.

    Raises:
        InputError: an image option is given for a table, a table option is given for images or an unknown data set,
            or a table has no target.
    """
    if not is_known(data) and any(options[name] != defaults[name] for name in _OF_TABLES):
        raise unknown_data_set(data)
    names, required, found = (_OF_IMAGES, "images", "a table") if is_table(data) else (_OF_TABLES, "tables", "images")
    for name in names:
        if options[name] != defaults[name]:
            raise InputError(f"{option(name)} requires {required}, and {data} contains {found}: leave it out")
    if is_table(data) and options["augment"] not in ("auto", "none"):
        raise InputError(
            f"{option('augment')} {options['augment']} requires images, and {data} is a table: leave it out"
        )
    if is_table(data) and options["target"] is None:
        raise InputError(f"missing {option('target')}, the name of the column of {data} to predict")
