"""Run cases in separate processes, several in parallel."""

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.cases import Case
from tests.campaign.check import Failure
from tests.campaign.forking import end_with_parent
from tests.campaign.verdict import Verdict
from tests.campaign.world import World

_LONGEST = 300.0  # seconds; the time limit of a case


@dataclass
class _Running:
    case: Case
    place: Path
    began: float = field(default_factory=time.monotonic)


@dataclass
class Engine:
    """Runs cases.

    Args:
        world: the initial states.
        jobs: the number of cases run in parallel.
    """

    world: World
    jobs: int
    _running: dict[int, _Running] = field(default_factory=dict)

    def all_of(self, cases: Iterable[Case]) -> Iterator[tuple[Case, Verdict]]:
        """Run all cases, and yield each with its verdict when it ends."""
        waiting = iter(cases)
        try:
            while True:
                while len(self._running) < self.jobs and (case := next(waiting, None)) is not None:
                    self._begin(case)
                if not self._running:
                    return
                yield from self._ended()
        finally:
            for pid in self._running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def one(self, case: Case) -> Verdict:
        """Run a single case."""
        return next(verdict for _, verdict in Engine(self.world, 1).all_of([case]))

    def _begin(self, case: Case) -> None:
        place = Path(tempfile.mkdtemp(prefix="case-", dir=self.world.base))
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _try(case, self.world, place)
        self._running[pid] = _Running(case, place)

    def _ended(self) -> Iterator[tuple[Case, Verdict]]:
        for pid, running in list(self._running.items()):
            if time.monotonic() > running.began + _LONGEST:
                os.kill(pid, signal.SIGKILL)
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._running[pid]
                yield running.case, _verdict(running)
                shutil.rmtree(running.place, ignore_errors=True)
        time.sleep(0.005)


def _try(case: Case, world: World, place: Path) -> None:
    try:
        end_with_parent()
        folder = place / "case"
        folder.mkdir()
        verdict = case.run(world, folder)
    except BaseException:
        verdict = Verdict(Counter(), [Failure("the campaign itself failed", traceback.format_exc())])
    with suppress(BaseException):
        (place / "verdict.json").write_text(verdict.to_json())
    os._exit(0)


def _verdict(running: _Running) -> Verdict:
    try:
        return Verdict.from_json((running.place / "verdict.json").read_text())
    except OSError:
        return Verdict(Counter(), [Failure("the campaign itself failed", "the process of the case was killed")])
