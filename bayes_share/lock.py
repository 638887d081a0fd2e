"""One process at a time in a folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

from bayes_share.errors import InputError, RunError

_PATIENCE = 3  # seconds, for a process that is about to end


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no other process of this user, on this machine, into the same part of the program for the same folder.

    The lock is a file among the system's temporary ones, in one folder for each user: the run's own folder may not be
    there yet, and holds what is of the run alone. However a process ends, its lock is gone; the empty file stays.

    Args:
        folder: of a run or a study.

    Raises:
        InputError: another process is at work in it.
        RunError: there can be no lock.
    """
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    locks = Path(tempfile.gettempdir()) / f"bayes-share{user}"
    name = sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
    lock = FileLock(locks / f"{name}.lock", timeout=_PATIENCE)
    try:
        locks.mkdir(mode=0o700, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is at work in {folder}: wait for it, or stop it") from error
    except OSError as error:
        raise RunError(f"there can be no lock in {locks}: {error.strerror}; TMPDIR names another place") from error
    try:
        yield
    finally:
        lock.release()
