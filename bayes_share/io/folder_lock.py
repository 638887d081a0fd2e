"""One process at a time in a folder."""

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
"""The name of the lock in a folder. However a process ends, its lock is gone; the empty file stays."""

_PATIENCE = 3.0  # seconds, for a process that is about to end

_FULL = (errno.ENOSPC, errno.EDQUOT)

_TIMES_GONE = 20  # that a folder is made again before it counts as one that cannot be made


class FolderInUse(InputError):
    """Another process is at work in a folder."""


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let no other process into the same part of the program for the same folder, on any machine that sees it.

    The folder is made where it is missing, and is gone again afterwards where nothing came into it.

    Args:
        folder: of a run or a study.

    Raises:
        FolderInUse: another process is at work in it.
        InputError: it cannot be made or written in, or its lock is none.
        RunError: the disk is full.
    """
    with _alone(folder, _PATIENCE):
        yield


@contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """The same, but wait for the other process, and say so: what is to be done here does not go against what it does.

    Args:
        folder: of a run or a study.

    Raises:
        InputError: it cannot be made or written in, or its lock is none.
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
    """The lock of a folder, once nobody else has it."""
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
            times_gone += isinstance(error, FileNotFoundError)  # with the other process, which left nothing in it
            if not 0 < times_gone < _TIMES_GONE:
                raise InputError(f"{folder} cannot be used as a folder: {error.strerror or error}") from error


def _check_lock(path: Path) -> None:
    """See that there is no lock yet, or one of this user's own, and not something that it would be taken for."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise InputError(f"{path} should be a lock file, and is a link, a folder or a device: remove it")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise InputError(f"{path} belongs to another user, who owns this run: use another folder")
