"""Which kind of task some data are."""

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
    """Whether the name of a data set is that of a table.

    >>> is_table("csv:houses.csv"), is_table("npz:cats.npz")
    (True, False)
    """
    kind, _, path = name.partition(":")
    return kind == _TABLE and bool(path)


def task_of(data: Data | TableData) -> Task:
    """The task of some data."""
    return TableTask(data) if isinstance(data, TableData) else ImageTask(data)


def spec_of(data: Data | TableData) -> DataSpec:
    """What the examples of some data are like."""
    return task_of(data).spec


def check_options(data: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """See whether options are of the kind that the data are of.

    Args:
        data: the name of the data set.
        options: by name.
        defaults: of the same.

    Raises:
        InputError: one of images with a table, or of tables with images or with data that there are not; or a table
            without a target.
    """
    if not is_known(data) and any(options[name] != defaults[name] for name in _OF_TABLES):
        raise unknown_data_set(data)
    others, of, has = (_OF_IMAGES, "images", "a table") if is_table(data) else (_OF_TABLES, "tables", "images")
    for name in others:
        if options[name] != defaults[name]:
            raise InputError(f"{option(name)} requires {of}, and {data} contains {has}: leave it out")
    if is_table(data) and options["augment"] not in ("auto", "none"):
        raise InputError(
            f"{option('augment')} {options['augment']} requires images, and {data} is a table: leave it out"
        )
    if is_table(data) and options["target"] is None:
        raise InputError(f"missing {option('target')}, the name of the column of {data} to predict")
