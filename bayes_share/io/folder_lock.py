"""Lock a folder so that only one process uses it at a time."""

import errno
import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bayes_share.errors import InputError, RunError
from bayes_share.io.reading import check_path
from bayes_share.io.terminal import say

LOCK = ".lock"
"""The name of the lock file in a folder. The lock is released however a process ends; the empty file may remain."""

_PATIENCE = 3.0  # seconds to wait for a process that may be about to end

_FULL = (errno.ENOSPC, errno.EDQUOT)

_TIMES_GONE = 20  # attempts to create a folder that keeps disappearing


class FolderInUse(InputError):
    """Another process is using the folder."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes, on every machine that shares it.

    The folder is created if missing, and removed again if it is still empty afterwards.

    Args:
        folder: the folder of a run or a study.

    Raises:
        FolderInUse: another process is using the folder.
        InputError: the folder cannot be created or written to, or its lock is not a regular file of this user.
        RunError: the disk is full.
    """
    with _alone(folder, _PATIENCE):
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Lock a folder as `alone_in` does, but wait as long as another process is using it, and say so on stderr.

    Args:
        folder: the folder of a run or a study.

    Raises:
        InputError: the folder cannot be created or written to, or its lock is not a regular file of this user.
        RunError: the disk is full.
    """
    with _alone(folder, math.inf):
        yield


@contextmanager
def _alone(folder: Path, patience: float) -> Iterator[None]:
    check_path(folder, "a folder to work in")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = _acquired(folder, patience)
    try:
        yield
    finally:
        with suppress(OSError):
            if os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()
                for path in made:
                    path.rmdir()
        lock.release()


def _acquired(folder: Path, patience: float) -> FileLock:
    """Acquire the lock of a folder, creating the folder if it is missing."""
    lock, until, is_said, times_gone = FileLock(folder / LOCK), time.monotonic() + patience, False, 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _check_lock(folder / LOCK)
            lock.acquire(timeout=_PATIENCE)
            return lock
        except Timeout as error:
            if time.monotonic() >= until:
                raise FolderInUse(f"another process is working in {folder}: wait for it, or stop it") from error
            if not is_said:
                say(f"{folder}: waiting for another process that is working in it")
                is_said = True
        except OSError as error:
            if error.errno in _FULL:
                raise RunError(f"{folder / LOCK} cannot be written: {error.strerror}") from error
            times_gone += isinstance(error, FileNotFoundError)  # the other process removed it, empty
            if not 0 < times_gone < _TIMES_GONE:
                raise InputError(f"{folder} cannot be used as a folder: {error.strerror or error}") from error


def _check_lock(path: Path) -> None:
    """Check that the lock file is missing, or is a regular file of this user without other hard links."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise InputError(f"{path} should be a lock file, and is a link, a folder or a device: remove it")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise InputError(f"{path} belongs to another user, who owns this run: use another folder")
