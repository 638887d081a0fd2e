"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from bayes_share.errors import RunError


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when all of it is on the disk, and leaves nothing otherwise.

    Whatever stops this, a full disk or a killed process, the file that was there before stays as it was.

    Args:
        path: the place; its folder is made where it is missing.

    Raises:
        RunError: the system refuses (no right, no space).
    """
    path = Path(path)
    # Not from `tempfile`, whose files nobody but the owner may read.
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}; what was there before is as it was") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _sync_folder(folder: Path) -> None:
    """Force the renaming itself to disk, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write all of a file, by way of `replacing`."""
    with replacing(path) as file:
        file.write(content)
