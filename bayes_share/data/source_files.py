"""The files of a data set, and a stamp that changes when they do."""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from bayes_share.data.listing import ENDINGS
from bayes_share.data.tables.folder import would_be_read
from bayes_share.io.files import real_path

_OF_FILES = ("npz", "folder", "csv", "cifar-10-c")


def source_path(source: str) -> Path | None:
    """Return the file or folder that a data set is read from, or None if its name contains no path.

    >>> source_path("npz:cats.npz"), source_path("cifar10")
    (PosixPath('cats.npz'), None)
    """
    kind, _, path = source.partition(":")
    return Path(path).expanduser() if kind in _OF_FILES and path else None


def is_of_source(source: str, place: Path) -> bool:
    """Return whether a file belongs to the files of a data set, or would belong once it is written.

    Args:
        source: the name of the data set.
        place: the file, with all links resolved.
    """
    path = source_path(source)
    if path is None or not place.is_relative_to(folder := real_path(path)):
        return False
    if source.startswith("csv:") and not place.exists():
        return would_be_read(folder, place)
    is_of_class = place.suffix.lower() in ENDINGS and place.parent != folder
    return place.exists() or (source.startswith("folder:") and is_of_class)


def source_stamp(source: str) -> str:
    """Compute a stamp from the names, sizes and modification times of all files of a data set, without reading them.

    Args:
        source: the name of the data set.

    Returns:
        A text that changes if a file is added, removed or changed; empty if there are no files.
    """
    path = source_path(source)
    digest = sha256()
    files = [] if path is None else sorted(_files(path))
    for line in files:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32] if files else ""


def _files(path: Path) -> Iterator[str]:
    """Yield a line for each file, and for each link to a folder."""
    if path.is_file():
        yield f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    for folder, folders, names in os.walk(path):
        for file in (Path(folder, name) for name in (*names, *folders)):
            with suppress(OSError):
                found = file.stat()
                if not file.is_dir() or file.is_symlink():
                    yield f"{found.st_size} {found.st_mtime_ns} {file.relative_to(path)}"
