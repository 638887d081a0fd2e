"""Inject a fault into a command at a chosen moment: a signal, or a disk that is full from then on."""

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

_FILLS = ("open", "os.mkdir", "fsync")  # the events that fail on a full disk; renaming and removing still work
_CHANGES = {*_FILLS, "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_SMALLEST, _LARGEST = 2_000, 60_000  # bytes; the output of a command, and the files that it writes


@dataclass(frozen=True)
class Fault:
    """A fault.

    Args:
        what: "kill", "interrupt" or "terminate", a signal that the process sends to itself; or "full", a disk that is
            full from then on.
        clock: how the moment is measured: "files" counts file operations; "calls" counts function calls and returns;
            "bytes" limits the size of a file; "stdout" fails from the start, because the output is full.
        part: the moment, as a fraction from 0 to 1 of all events in an undisturbed command.
        again: the fraction of events after which the signal is sent a second time. 0: only once.
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
        """Parse a fault from its text."""
        what, clock, *parts = text.split(":")
        return cls(what, clock, *map(float, parts))

    @classmethod
    def draw(cls, what: str, rng: Random) -> "Fault":
        """Draw a fault of a kind at a random moment."""
        clock = rng.choice(("files", "bytes", "stdout") if what == "full" else ("files", "calls"))
        again = round(rng.random() / 10, 4) if what in ("interrupt", "terminate") and rng.random() < 0.3 else 0.0
        return cls(what, clock, round(rng.random(), 4), again)


@dataclass
class Clock:
    """Counts events in a command, and calls functions at chosen counts.

    Args:
        folder: only file operations in this folder are counted.
        counts: the number of events of each kind.
        strikes: the functions to call, by kind and count.
        is_full: whether the disk is full.
        is_over: whether the command has ended, so that events are no longer counted.
    """

    folder: str
    counts: dict[str, int] = field(default_factory=lambda: {"files": 0, "calls": 0})
    strikes: dict[tuple[str, int], Callable[[], None]] = field(default_factory=dict)
    is_full: bool = False
    is_over: bool = False

    def tick(self, kind: str) -> None:
        """Count an event."""
        if self.is_over:
            return
        self.counts[kind] += 1
        if strike := self.strikes.get((kind, self.counts[kind])):
            strike()

    def on_event(self, event: str, args: tuple[Any, ...]) -> None:
        """Count an event that changes a file, or fail it if the disk is full; an audit hook."""
        if event not in _CHANGES or not self._is_change(event, args):
            return
        self.tick("files")
        if self.is_full and event in _FILLS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))

    def on_call(self, frame: FrameType, event: str, arg: Any) -> None:
        """Count a call or return; a profile function."""
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
    """Count events in this process, which must end afterwards, and inject a fault.

    Args:
        folder: only file operations in this folder are counted.
        fault: the fault, or None.
        totals: the counts of the undisturbed command, which the fault's moment is a fraction of.
        is_measured: whether calls are counted even without a fault; this about doubles the running time.
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
