"""What befalls a command at a chosen moment: a signal, or a disk that is full from then on."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}

_FILLS = ("open", "os.mkdir", "fsync")  # what a full disk refuses; names can be changed and removed on it
_CHANGES = {*_FILLS, "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_SMALLEST, _LARGEST = 2_000, 60_000  # bytes; what a command says, and the files that it writes


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        what: "kill", "interrupt" or "terminate": a signal to itself; "full": no space left from then on.
        clock: what counts the time: "files": what is done to files; "calls": calls of functions, in and out; "bytes":
            a file may not become larger; "stdout": none, it is the output that is full.
        part: of all that the clock counts in a command that nothing befalls, from 0 to 1.
        again: the same part of it later the signal comes a second time; 0: it does not.
    """

    what: str
    clock: str
    part: float
    again: float = 0.0

    def __str__(self) -> str:
        again = f":{self.again:g}" if self.again else ""
        return f"{self.what}:{self.clock}:{self.part:g}{again}"

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """The fault that was written like that."""
        what, clock, *parts = text.split(":")
        return cls(what, clock, *map(float, parts))

    @classmethod
    def draw(cls, what: str, rng: Random) -> "Fault":
        """One of a kind, at any moment."""
        clock = rng.choice(("files", "bytes", "stdout") if what == "full" else ("files", "calls"))
        again = round(rng.random() / 10, 4) if what in ("interrupt", "terminate") and rng.random() < 0.3 else 0.0
        return cls(what, clock, round(rng.random(), 4), again)


@dataclass
class Clock:
    """How much of each kind has happened in a command, and what happens at chosen counts.

    Args:
        folder: changes of files are counted in it alone.
        strikes: what is called at a count, by kind and count.
        is_full: whether there is no space on the disk.
        is_over: whether the command has ended, so that nothing counts any more.
    """

    folder: str
    counts: dict[str, int] = field(default_factory=lambda: {"files": 0, "calls": 0})
    strikes: dict[tuple[str, int], Callable[[], None]] = field(default_factory=dict)
    is_full: bool = False
    is_over: bool = False

    def tick(self, kind: str) -> None:
        """One more has happened."""
        if self.is_over:
            return
        self.counts[kind] += 1
        if strike := self.strikes.get((kind, self.counts[kind])):
            strike()

    def on_event(self, event: str, args: tuple[Any, ...]) -> None:
        """See whether what Python is about to do changes a file; an audit hook."""
        if event not in _CHANGES or not self._is_change(event, args):
            return
        self.tick("files")
        if self.is_full and event in _FILLS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

    def on_call(self, frame: FrameType, event: str, arg: Any) -> None:
        """A function is called, or is left; a profile function."""
        self.tick("calls")

    def _is_change(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return False
        return isinstance(args[0], str | bytes | os.PathLike) and os.path.abspath(os.fsdecode(args[0])).startswith(
            self.folder
        )


@contextmanager
def ticking(folder: Path, fault: Fault | None, totals: dict[str, int] | None, is_measured: bool) -> Iterator[Clock]:
    """Count what happens in this process, which ends afterwards, and let a fault come true.

    Args:
        folder: changes of files are counted in it alone.
        fault: see there; None: nothing befalls it.
        totals: the counts where nothing befalls it, which a fault's moment is a part of.
        is_measured: whether calls are counted, which takes as long again as what is called.
    """
    clock = Clock(os.path.abspath(folder))
    if fault is not None and totals is not None:
        _set(clock, fault, totals)
    sync = os.fsync

    def counted_sync(fd: Any) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        clock.on_event("fsync", (os.readlink(f"/proc/self/fd/{number}"),))
        sync(fd)

    os.fsync = counted_sync
    sys.addaudithook(clock.on_event)
    if is_measured or (fault is not None and fault.clock == "calls"):
        sys.setprofile(clock.on_call)
    try:
        yield clock
    finally:
        clock.is_over, clock.is_full = True, False
        sys.setprofile(None)


def _set(clock: Clock, fault: Fault, totals: dict[str, int]) -> None:
    if fault.clock == "stdout":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        return
    if fault.clock == "bytes":
        largest = _SMALLEST + int(fault.part * _LARGEST)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        return

    def fill() -> None:
        clock.is_full = True

    strike = fill if fault.what == "full" else lambda: signal.raise_signal(SIGNALS[fault.what])
    moments = [fault.part, fault.part + fault.again] if fault.again else [fault.part]
    for moment in moments:
        clock.strikes[fault.clock, 1 + int(moment * totals[fault.clock])] = strike
