"""Files that are there whole or not at all."""

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bayes_share.errors import RunError

_LONGEST = 200  # bytes of a name that still stands in the name of the file beside it; 255 are a name's limit
_BESIDE = re.compile(r"\.(?P<name>.+)\.[0-9a-f]+\.tmp", re.DOTALL)


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when all of it is on the disk, and leaves nothing otherwise.

    Whatever stops this, a full disk or a killed process, the file that was there before stays as it was. Where `path`
    is a link, the file that it leads to is written.

    Args:
        path: the place; its folder is made where it is missing.

    Raises:
        RunError: the system refuses (no right, no space), or there is something that is no regular file.
    """
    place = Path(os.path.realpath(path))
    beside = beside_of(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists() and not stat.S_ISREG(place.stat().st_mode):
            raise RunError(f"cannot write {path}: it is not a regular file; nothing was changed")
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(place)
        _sync_folder(place.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; the previous content is unchanged") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def beside_of(path: Path) -> Path:
    """Where something is written that is to take the place of `path`: no other process writes there, on any machine.

    Not from `tempfile`, whose files nobody but the owner may read.
    """
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST else "long"
    return path.with_name(f".{name}.{secrets.token_hex(8)}.tmp")


def left_beside(path: Path) -> str | None:
    """The name of the file that `path` was to take the place of; None where it is no file that `replacing` writes.

    >>> left_beside(Path("run/.test.npz.0123456789abcdef.tmp"))
    'test.npz'
    >>> left_beside(Path("run/.mine.tmp"))
    """
    match = _BESIDE.fullmatch(path.name)
    return match["name"] if match else None


def real_path(path: str | Path) -> Path:
    """Where a path leads once all links are followed; `Path.resolve` raises for links that lead to one another."""
    return Path(os.path.realpath(path))


def remove_left_beside(folder: Path, is_own: Callable[[str], bool]) -> None:
    """Remove what killed processes left half written in a folder in which no other process is at work.

    Args:
        folder: where it lies.
        is_own: whether a file of this name is written by whoever is at work there; the others are left alone.
    """
    for file in folder.glob(".*.tmp"):
        if is_own(left_beside(file) or ""):
            with suppress(OSError):
                file.unlink()


def remove(path: Path) -> None:
    """Remove a file, where there is one.

    Raises:
        RunError: it cannot be removed, such as a folder in its place.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path} is in the way and cannot be removed: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Force the renaming itself to disk, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write all of a file, by way of `replacing`.

    Raises:
        RunError: what `replacing` refuses.
    """
    with replacing(path) as file:
        file.write(content)
