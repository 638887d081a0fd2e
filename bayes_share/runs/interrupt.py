"""Ctrl-C and SIGTERM: seen between two steps, or raised as one exception."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class InterruptedRun(KeyboardInterrupt):
    """A run was interrupted, and has saved what it needs to go on."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ask whether Ctrl-C or SIGTERM came, instead of being stopped in the middle of a step; a second one stops.

    Outside the main thread, where no signal arrives, none is ever seen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    ignored = signal.SIG_IGN  # as in what `nohup` starts, or a study's own processes, which another one stops
    signals = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not ignored]
    before = {int(number): signal.getsignal(number) for number in signals}

    def note(number: int, frame: Any) -> None:
        came.append(number)
        signal.signal(number, before[number])

    for number in signals:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number in signals:
            signal.signal(number, before[number])


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM end what is done here as Ctrl-C does, by an exception: files are whole, and locks given back.

    Outside the main thread, where no signal arrives, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise InterruptedRun("stopped")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
