"""One process at a time in a folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from bayes_share.errors import InputError

_PATIENCE = 3  # seconds, for a process that is about to end


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no other process of this user, on this machine, into the same part of the program for the same folder.

    The lock is a file among the system's temporary ones: the folder may not be there yet, and holds what is of the run
    alone. However a process ends, its lock is gone.

    Args:
        folder: of a run or a study.

    Raises:
        InputError: another process is at work in it.
    """
    user = os.getuid() if hasattr(os, "getuid") else ""
    name = sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir()) / f"bayes-share-{user}-{name}.lock", timeout=_PATIENCE)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is at work in {folder}: wait for it, or stop it") from error
    try:
        yield
    finally:
        lock.release()
