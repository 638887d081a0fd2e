"""Run commands in forks of a process that has imported everything, with limits on time, memory and file size."""

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bayes_share.cli import main
from tests.campaign.faults import Fault, ticking
from tests.campaign.forking import end_with_parent, fork_in_place_of_spawn
from tests.campaign.loading import load_run

_SECONDS = 15.0  # time limit of a command, after which it is interrupted unless it is still working
_AT_MOST = 4  # a working command may take this many times as long
_LOOK_AGAIN = 4.0  # seconds between checks whether a command is working
_WORKING = 0.3  # seconds of CPU time in that interval, above which a command counts as working
_GRACE = 10.0  # seconds from the interrupt to the kill
_MEMORY = 4 * 2**30  # bytes of address space in addition to what a command starts with
_FILE = 2**28  # bytes; the maximum size of a file, so that a campaign does not fill the disk
_COMMANDS = ("evaluate", "quickstart", "report", "study")
_PRODUCT = ("runs.run", "reports.build", *(f"commands.{name}" for name in _COMMANDS))
_LATE = (
    *("sklearn.datasets", "torch._dynamo", "PIL.JpegImagePlugin", "PIL.GifImagePlugin", "PIL.BmpImagePlugin"),
    *("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg"),
)  # modules that commands import lazily


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        words: the words of the command.
        code: the exit code, or minus the number of the signal that ended the command.
        out: the text written to stdout.
        err: the text written to stderr.
        seconds: the elapsed time.
        memory: the peak memory in bytes, in addition to what the command started with.
        was_late: whether the command exceeded the time limit and was interrupted.
        counts: the number of events, see `faults.Clock`; empty if the command was killed.
    """

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    memory: int
    was_late: bool
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """A running command."""

    words: tuple[str, ...]
    pid: int
    streams: Path
    began: float
    memory: int

    def outcome(self, seconds: float = _SECONDS) -> Outcome:
        """Wait for the end of the command, and kill the processes that it started."""
        status, usage, was_late = self._wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        out, err = [(self.streams / name).read_bytes().decode(errors="replace") for name in ("out", "err")]
        counts = self.streams / "counts"
        outcome = Outcome(
            words=self.words,
            code=os.waitstatus_to_exitcode(status),
            out=out,
            err=err,
            seconds=time.monotonic() - self.began,
            memory=max(0, usage.ru_maxrss * 1024 - self.memory),
            was_late=was_late,
            counts=json.loads(counts.read_text()) if counts.exists() else {},
        )
        shutil.rmtree(self.streams)
        return outcome

    def _wait(self, seconds: float) -> tuple[int, resource.struct_rusage, bool]:
        deadline, worked, was_late, pause = self.began + seconds, 0.0, False, 0.001
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                return status, usage, was_late
            if (now := time.monotonic()) > deadline:
                before, worked = worked, _cpu_seconds(self.pid)
                if worked > before + _WORKING and now < self.began + _AT_MOST * seconds:
                    deadline = now + _LOOK_AGAIN  # the machine is slow
                else:
                    os.kill(self.pid, signal.SIGKILL if was_late else signal.SIGINT)
                    was_late, deadline = True, now + _GRACE
                    worked += _GRACE  # the next check counts it as not working
            time.sleep(pause)
            pause = min(0.02, 1.2 * pause)


def prepare() -> None:
    """Import all modules that a command may need, so that forked processes start with them."""
    torch.set_num_threads(1)  # no threads may exist when a process is forked
    for name in (*(f"bayes_share.{module}" for module in _PRODUCT), *_LATE):
        importlib.import_module(name)


def start(
    words: Sequence[str],
    folder: Path,
    fault: Fault | None = None,
    totals: dict[str, int] | None = None,
    is_measured: bool = False,
) -> Started:
    """Start ``bayes-share WORDS`` in a folder."""
    streams = Path(tempfile.mkdtemp(prefix="streams-", dir=folder.parent))
    for name in ("out", "err"):
        (streams / name).touch()
    memory = _resident()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(words, folder, streams, fault, totals, is_measured)
    return Started(tuple(words), pid, streams, time.monotonic(), memory)


def run(
    words: Sequence[str],
    folder: Path,
    fault: Fault | None = None,
    totals: dict[str, int] | None = None,
    is_measured: bool = False,
) -> Outcome:
    """Run ``bayes-share WORDS`` in a folder and wait for its end."""
    return start(words, folder, fault, totals, is_measured).outcome()


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants."""
    worked = 0.0
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        worked = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        worked += sum(map(_cpu_seconds, map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())))
    return worked


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _child(
    words: Sequence[str],
    folder: Path,
    streams: Path,
    fault: Fault | None,
    totals: dict[str, int] | None,
    is_measured: bool,
) -> None:
    code = 1
    try:
        end_with_parent()
        os.setpgid(0, 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(streams / name, os.O_WRONLY | os.O_APPEND), number)
        os.chdir(folder)
        _limit()
        fork_in_place_of_spawn()  # the workers of a study
        with ticking(folder, fault, totals, is_measured) as clock:
            code = COMMANDS.get(words[0], main)(list(words))
            clock.is_over = True  # stop counting before leaving the block
        sys.stdout.flush()
        (streams / "counts").write_text(json.dumps(clock.counts))
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
    finally:
        os._exit(code)


def _limit() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in background processes
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + _MEMORY
    for kind, most in ((resource.RLIMIT_AS, addresses), (resource.RLIMIT_FSIZE, _FILE), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))


COMMANDS = {"load_run": load_run}
"""Commands that are not part of the command line."""
