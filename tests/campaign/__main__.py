"""The campaign's command line."""

import argparse
import itertools
import os
import platform
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bayes_share.version import __version__
from tests.campaign.cases import Case, draw, parse
from tests.campaign.check import Failure
from tests.campaign.engine import Engine
from tests.campaign.process import prepare
from tests.campaign.verdict import Verdict
from tests.campaign.world import World

_SAID_EVERY = 10.0  # seconds between progress lines
_SHRINKING = 60.0  # seconds; the time limit for shrinking a failing case


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign, and return 1 if a case failed, else 0."""
    options = _options(arguments)
    prepare()
    base = Path(tempfile.mkdtemp(prefix="campaign-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(base)
    try:
        return _campaign(options, Engine(World(base), options.jobs))
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Kills, interrupts and mutates runs.")
    parser.add_argument("--seconds", type=float, default=60.0, help="time after which no new case begins")
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases")
    parser.add_argument("--cases", type=int, help="maximum number of cases")
    parser.add_argument("--case", type=int, help="run only the case with this number")
    parser.add_argument("--repeat", metavar="TEXT", nargs="+", help="run only these cases, as printed by a campaign")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of cases run in parallel")
    return parser.parse_args(arguments)


@dataclass
class Tally:
    """The results of a campaign.

    Args:
        cases: the number of cases by group.
        failed: the number of failed cases by group.
        counts: the number of faults, changed files and so on, by name.
        failures: by cause, the smallest failing case, its failure, and the number of failures.
    """

    cases: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[str, tuple[Case, Failure, int]] = field(default_factory=dict)

    def add(self, case: Case, verdict: Verdict) -> None:
        """Add the verdict of a case."""
        self.cases[case.group] += 1
        self.failed[case.group] += bool(verdict.failures)
        self.counts += verdict.counts
        for failure in verdict.failures:
            smallest, seen, times = self.failures.get(failure.cause, (case, failure, 0))
            if len(str(case)) < len(str(smallest)):
                smallest, seen = case, failure
            self.failures[failure.cause] = (smallest, seen, times + 1)

    def line(self) -> str:
        """Return the progress in one line."""
        return f"{sum(self.cases.values()):,} cases, {sum(self.failed.values()):,} failed"


def _campaign(options: argparse.Namespace, engine: Engine) -> int:
    began, tally = time.monotonic(), Tally()
    said = began
    for case, verdict in engine.all_of(_cases(options, began)):
        tally.add(case, verdict)
        if time.monotonic() > said + _SAID_EVERY:
            said = time.monotonic()
            print(f"{said - began:.0f} s: {tally.line()}", file=sys.stderr)
    _show(tally, options, time.monotonic() - began)
    if not tally.failures:
        return 0
    cause, (case, failure, _) = min(tally.failures.items(), key=lambda item: len(str(item[1][0])))
    smallest, seen = shrink(engine, case, cause, failure)
    print(f"\nthe smallest failing case: {cause}\n  {_repeat(smallest)}\n{seen.detail}")
    return 1


def _cases(options: argparse.Namespace, began: float) -> Iterator[Case]:
    if options.repeat is not None:
        yield from map(parse, options.repeat)
    elif options.case is not None:
        yield draw(options.seed, options.case)
    else:
        numbers = itertools.count() if options.cases is None else range(options.cases)
        yield from (
            draw(options.seed, number)
            for number in itertools.takewhile(lambda _: time.monotonic() < began + options.seconds, numbers)
        )


def shrink(engine: Engine, case: Case, cause: str, failure: Failure) -> tuple[Case, Failure]:
    """Search for a simpler case that fails with the same cause, for up to a minute, and return it and its failure."""
    deadline = time.monotonic() + _SHRINKING
    while True:
        for simpler in case.simpler():
            if time.monotonic() > deadline:
                return case, failure
            found = [one for one in engine.one(simpler).failures if one.cause == cause]
            if found:
                case, failure = simpler, found[0]
                break
        else:
            return case, failure


def _repeat(case: Case) -> str:
    return f'python -m tests.campaign --repeat "{case}"'


def _show(tally: Tally, options: argparse.Namespace, seconds: float) -> None:
    total = sum(tally.cases.values())
    versions = f"bayes-share {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    print(
        f"seed {options.seed}, {seconds:.0f} s on {options.jobs} jobs, {total / seconds:.1f} cases a second; {versions}"
    )
    for group, count in sorted(tally.cases.items()):
        print(f"  {group:<10} {count:6,} cases  {tally.failed[group]:4,} failed")
    for what, count in sorted(tally.counts.items()):
        print(f"  {count:6,} {what}")
    print(f"{sum(tally.failed.values()):,} cases failed, of {len(tally.failures)} causes")
    for cause, (case, failure, times) in sorted(tally.failures.items(), key=lambda item: -item[1][2]):
        said = failure.detail.rstrip().rpartition("\n")[2]
        print(f"  {times:4,}  {cause}\n        {_repeat(case)}\n        {said[:200]!r}")


if __name__ == "__main__":
    sys.exit(main())
