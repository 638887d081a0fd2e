"""Files that are there whole or not at all."""

import os
from pathlib import Path

from bayes_share.errors import RunError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place, force it to disk and rename it into place.

    Whatever stops this, a full disk or a killed process, the file that was there before stays as it was.

    Raises:
        RunError: the file could not be written; says why, and leaves nothing half-written behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror}; what was there before is as it was") from error
