"""The files that a set of examples is read from, and a stamp that changes with them."""

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
    """The file or folder that a set of images is read from; None where its name says none.

    >>> source_path("npz:cats.npz"), source_path("cifar10")
    (PosixPath('cats.npz'), None)
    """
    kind, _, path = source.partition(":")
    return Path(path).expanduser() if kind in _OF_FILES and path else None


def is_of_source(source: str, place: Path) -> bool:
    """Whether a file is, or once it is written would be, one of those that a set is read from.

    Args:
        source: the set, as a user names it.
        place: the file, with all links followed.
    """
    path = source_path(source)
    if path is None or not place.is_relative_to(folder := real_path(path)):
        return False
    if source.startswith("csv:") and not place.exists():
        return would_be_read(folder, place)
    is_of_class = place.suffix.lower() in ENDINGS and place.parent != folder
    return place.exists() or (source.startswith("folder:") and is_of_class)


def source_stamp(source: str) -> str:
    """A stamp of the names, sizes and times of all files of a set, which are not read.

    Args:
        source: a set of images, as a user names it.

    Returns:
        The same as long as no file comes, goes or changes; empty where there are none.
    """
    path = source_path(source)
    digest = sha256()
    files = [] if path is None else sorted(_files(path))
    for line in files:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32] if files else ""


def _files(path: Path) -> Iterator[str]:
    """A line for each file that is there, and for each folder elsewhere that a link leads to."""
    if path.is_file():
        yield f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    for folder, folders, names in os.walk(path):
        for file in (Path(folder, name) for name in (*names, *folders)):
            with suppress(OSError):
                found = file.stat()
                if not file.is_dir() or file.is_symlink():
                    yield f"{found.st_size} {found.st_mtime_ns} {file.relative_to(path)}"
