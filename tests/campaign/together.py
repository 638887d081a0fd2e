"""Commands at the same time in one folder."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.campaign.check import Failure, failure, misbehaviour, otherwise
from tests.campaign.process import Outcome, run, start
from tests.campaign.verdict import Verdict
from tests.campaign.world import SUBJECTS, World, copy, words_of

_COMPANIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "two-sets": ("finished", ("ood", "other ood")),
    "one-set": ("finished", ("ood", "ood")),
    "set-and-corruptions": ("finished", ("corruptions", "ood")),
    "two-fits": ("empty", ("fit", "fit")),
    "two-resumed": ("begun", ("resume", "resume")),
    "loaded": ("begun", ("resume", "load_run", "load_run", "load_run", "load_run")),
    "evaluated": ("begun", ("resume", "evaluate", "ood")),
    "report-and-set": ("finished", ("other ood", "report")),
    "two-studies": ("empty", ("study", "study")),
    "two-studies-again": ("studied", ("go on with study", "go on with study")),
}
"""By name: the state of the folder, and the commands."""

_ONLY_MAP = ("report-and-set", "two-studies", "two-studies-again")
_MAY_BE_REFUSED = ("fit", "resume", "study", "go on with study")  # where another is at work
_NOT_YET = {"begun": ("evaluate", "ood")}  # what is refused as long as the run is not finished
_LONGEST_PAUSE = 0.4  # seconds


@dataclass(frozen=True)
class Together:
    """Commands at the same time in one folder, which say and leave what they would one after the other.

    Args:
        subject: a key of `world.SUBJECTS`.
        company: a key of `_COMPANIES`.
        number: from which the pauses between their beginnings are drawn.
    """

    kind: ClassVar[str] = "together"
    subject: str
    company: str
    number: int

    @property
    def group(self) -> str:
        """What the case counts as."""
        return self.kind

    @classmethod
    def draw(cls, rng: Random) -> "Together":
        """Any one."""
        company = rng.choice(list(_COMPANIES))
        return cls("map" if company in _ONLY_MAP else rng.choice(list(SUBJECTS)), company, rng.randrange(10**6))

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.company} {self.number}"

    @classmethod
    def parse(cls, words: list[str]) -> "Together":
        """The case that was written like that."""
        subject, company, number = words
        return cls(subject, company, int(number))

    def simpler(self) -> Iterator["Together"]:
        """The simplest run."""
        if self.subject != "map":
            yield replace(self, subject="map")

    def run(self, world: World, folder: Path) -> Verdict:
        """Try it in a folder, which is empty."""
        state, commands = _COMPANIES[self.company]
        copy(world.state(self.subject, state), folder)
        rng, started = Random(self.number), []
        for command in commands:
            started.append(start(words_of(self.subject, command), folder))
            time.sleep(rng.random() * _LONGEST_PAUSE)
        outcomes = [one.outcome() for one in started]
        failures = list(_in_company(state, commands, outcomes))
        failures += self._afterwards(world, folder, state, list(dict.fromkeys(commands)))
        refused = sum(outcome.code != 0 for outcome in outcomes)
        return Verdict(Counter({"commands together": len(commands), "refused beside another": refused}), failures)

    def _afterwards(self, world: World, folder: Path, state: str, commands: list[str]) -> Iterator[Failure]:
        """The commands one after the other leave the same in the folder as in one where each was alone."""
        alone = copy(world.state(self.subject, state), folder.with_name("alone"))
        for command in commands:
            run(words_of(self.subject, command), alone)
            outcome = run(words_of(self.subject, command), folder)
            yield from misbehaviour(outcome)
            if outcome.code != 0:
                yield failure(f"{self.company}: {command} fails afterwards", outcome)
                return
        if others := otherwise(folder, alone):
            yield failure(f"{self.company}: what is left is other than alone", outcome, f"{', '.join(others[:8])}\n")


def _in_company(state: str, commands: tuple[str, ...], outcomes: list[Outcome]) -> Iterator[Failure]:
    ended_well = {command for command, outcome in zip(commands, outcomes, strict=True) if outcome.code == 0}
    for command, outcome in zip(commands, outcomes, strict=True):
        yield from misbehaviour(outcome)
        may_fail = command in _NOT_YET.get(state, ()) or (command in _MAY_BE_REFUSED and command in ended_well)
        if outcome.code != 0 and "Traceback" not in outcome.err and not may_fail:
            yield failure(f"{command} beside {', '.join(sorted(set(commands)))} ends with {outcome.code}", outcome)
