"""Handling of Ctrl-C and SIGTERM: checked between two steps, or raised as one exception."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class InterruptedRun(KeyboardInterrupt):
    """A run was interrupted. Its checkpoint allows it to be resumed."""


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or SIGTERM arrived.

    The first signal is only recorded, so that a step is not stopped halfway; a second one has its usual effect. Outside
    the main thread, which receives no signals, the function always returns False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []
    ignored = signal.SIG_IGN  # inherited from `nohup`, or set for the worker processes of a study: stays ignored
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
    """Raise `InterruptedRun` on SIGTERM, so that files are completed and locks are released as on Ctrl-C.

    Outside the main thread, which receives no signals, nothing changes.
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
