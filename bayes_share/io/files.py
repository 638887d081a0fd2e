"""Atomic writes: a file is either complete or absent."""

import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bayes_share.errors import RunError

_LONGEST = 200  # bytes; longer names are left out of the temporary file's name, whose limit is 255 bytes
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]+\.tmp", re.DOTALL)


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` once it is completely on disk, and is removed after an error.

    If writing fails, for example because the disk is full or the process is killed, the previous file is unchanged.
    If `path` is a symbolic link, its target is replaced.

    Args:
        path: the file to replace; its folder is created if missing.

    Raises:
        RunError: the file cannot be written (no permission, no space), or `path` exists and is not a regular file.
    """
    target = Path(os.path.realpath(path))
    temporary = beside_of(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            raise RunError(f"cannot write {path}: it is not a regular file; nothing was changed")
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; the previous content is unchanged") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def beside_of(path: Path) -> Path:
    """Return the path of a temporary file in the folder of `path`, with a random name that no other process uses.

    `tempfile` is not used because only the owner may read its files.
    """
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST else "long"
    return path.with_name(f".{name}.{secrets.token_hex(8)}.tmp")


def left_beside(path: Path) -> str | None:
    """Return the name of the file that a temporary file of `replacing` was to replace, or None for any other file.

    >>> left_beside(Path("run/.test.npz.0123456789abcdef.tmp"))
    'test.npz'
    >>> left_beside(Path("run/.mine.tmp"))
    """
    match = _TEMPORARY.fullmatch(path.name)
    return match["name"] if match else None


def real_path(path: str | Path) -> Path:
    """Resolve all symbolic links of a path. Unlike `Path.resolve`, this does not raise for circular links."""
    return Path(os.path.realpath(path))


def remove_left_beside(folder: Path, is_own: Callable[[str], bool]) -> None:
    """Remove temporary files that killed processes left in a folder. No other process may be using the folder.

    Args:
        folder: the folder.
        is_own: whether the caller writes a file of this name; temporary files of other names are kept.
    """
    for file in folder.glob(".*.tmp"):
        if is_own(left_beside(file) or ""):
            with suppress(OSError):
                file.unlink()


def remove(path: Path) -> None:
    """Remove a file if it exists.

    Raises:
        RunError: the file cannot be removed, for example because it is a folder.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path} is in the way and cannot be removed: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    """Flush the renaming of a file to disk, on systems that can open folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file atomically, with `replacing`.

    Raises:
        RunError: see `replacing`.
    """
    with replacing(path) as file:
        file.write(content)
