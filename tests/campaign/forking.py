"""Forks: safe where no thread has begun, and quick where to spawn takes seconds."""

import ctypes
import multiprocessing.context
import os
import signal
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, ForkProcess

_MOST_FILES = 1024


class _Process(ForkProcess):
    """Holds no end of a pipe but those that it is given, as one that was spawned."""

    def run(self) -> None:
        own = {argument.fileno() for argument in self._args if isinstance(argument, Connection)}  # type: ignore[attr-defined]
        for descriptor in set(range(3, _MOST_FILES)) - own:
            try:
                os.close(descriptor)
            except OSError:
                continue
        super().run()


class _Context(ForkContext):
    Process = _Process


def fork_in_place_of_spawn() -> None:
    """From now on this process forks where it is asked to spawn."""
    multiprocessing.context._concrete_contexts["spawn"] = _Context()  # type: ignore[attr-defined]


def end_with_parent() -> None:
    """From now on this process is killed when the one that forked it ends, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
