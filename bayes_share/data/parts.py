"""Recognise the parts of a data set by the names of files and folders."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.io.terminal import listed

PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing"),
}
"""The names of each part; case is ignored."""

TABLE_ENDINGS = (".csv", ".tsv", ".parquet", ".pq")
"""Lower-case endings of table files."""


def part_of(name: str) -> str | None:
    """Return the part that a folder, or a file without its ending, is named after, or None.

    >>> part_of("Training"), part_of("val"), part_of("cats")
    ('train', 'validation', None)
    """
    return next((part for part, names in PARTS.items() if name.lower() in names), None)


def by_part(paths: Iterable[Path], where: str, ending: str = "") -> dict[str, Path]:
    """Return the files or folders that are named after a part, by part. Others are ignored.

    Args:
        paths: the content of one folder.
        where: the data set, for messages.
        ending: the lower-case ending of the names.

    Raises:
        InputError: two paths are named after the same part, or link to the same data.
    """
    found: dict[str, Path] = {}
    for path in paths:
        part = part_of(path.name.lower().removesuffix(ending))
        if part is None:
            continue
        if part in found:
            names = f"{found[part].name} and {path.name}"
            raise InputError(f"{where}: {names} are both named after the {part} part; keep one of them")
        found[part] = path
    if len({os.path.realpath(path) for path in found.values()}) < len(found):
        names = ", ".join(path.name for path in found.values())
        raise InputError(f"{where}: two of {names} are links to the same data, so that examples would be in both parts")
    return {part: found[part] for part in PARTS if part in found}


def check_classes(folders: Iterable[Path], where: str) -> None:
    """Raise an InputError if class folders look like parts, such as ``seg_train`` and ``seg_test``.

    Only folders with subfolders are checked, since a class may be called ``train_station``.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", folder.name):
            if (part := part_of(word)) and any(path.is_dir() for path in folder.iterdir()):
                found[part] = folder
    if {"train", "test"} <= found.keys():
        names = listed(found[part].name for part in ("train", "test"))
        raise InputError(
            f"{where}: {names} seem to be parts of a data set rather than classes; rename them to train and test"
        )


def check_parts(found: Mapping[str, Path], where: str, ending: str = "") -> None:
    """Raise an InputError if the training or the test part was not found."""
    for part in ("train", "test"):
        if part not in found:
            names = listed(path.name for path in found.values()) or f"no train{ending}"
            raise InputError(f"{where}: it has {names}, but needs both train{ending} and test{ending}")
