"""Commands that run at the same time in one folder."""

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

_COMBINATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
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
"""The initial state of the folder and the commands, by name."""

_ONLY_MAP = ("report-and-set", "two-studies", "two-studies-again")
_MAY_BE_REFUSED = ("fit", "resume", "study", "go on with study")  # while another command uses the folder
_NOT_YET = {"begun": ("evaluate", "ood")}  # refused until the run is finished
_LONGEST_PAUSE = 0.4  # seconds between the starts of two commands


@dataclass(frozen=True)
class Together:
    """Commands that run at the same time in one folder, and must give the same results as one after the other.

    Args:
        subject: a key of `world.SUBJECTS`.
        combination: a key of `_COMBINATIONS`.
        number: the seed of the pauses between their starts.
    """

    kind: ClassVar[str] = "together"
    subject: str
    combination: str
    number: int

    @property
    def group(self) -> str:
        """The group that the case is counted in."""
        return self.kind

    @classmethod
    def draw(cls, rng: Random) -> "Together":
        """Draw a random case."""
        combination = rng.choice(list(_COMBINATIONS))
        return cls("map" if combination in _ONLY_MAP else rng.choice(list(SUBJECTS)), combination, rng.randrange(10**6))

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.combination} {self.number}"

    @classmethod
    def parse(cls, words: list[str]) -> "Together":
        """Parse a case from its words."""
        subject, combination, number = words
        return cls(subject, combination, int(number))

    def simpler(self) -> Iterator["Together"]:
        """Yield the same case with the simplest run."""
        if self.subject != "map":
            yield replace(self, subject="map")

    def run(self, world: World, folder: Path) -> Verdict:
        """Run the case in an empty folder."""
        state, commands = _COMBINATIONS[self.combination]
        copy(world.state(self.subject, state), folder)
        rng, started = Random(self.number), []
        for command in commands:
            started.append(start(words_of(self.subject, command), folder))
            time.sleep(rng.random() * _LONGEST_PAUSE)
        outcomes = [one.outcome() for one in started]
        failures = list(_while_together(state, commands, outcomes))
        failures += self._afterwards(world, folder, state, list(dict.fromkeys(commands)))
        refused = sum(outcome.code != 0 for outcome in outcomes)
        return Verdict(Counter({"concurrent commands": len(commands), "refused while concurrent": refused}), failures)

    def _afterwards(self, world: World, folder: Path, state: str, commands: list[str]) -> Iterator[Failure]:
        """Run the commands once more in sequence, and compare the folder with one where they never ran together."""
        alone = copy(world.state(self.subject, state), folder.with_name("alone"))
        for command in commands:
            run(words_of(self.subject, command), alone)
            outcome = run(words_of(self.subject, command), folder)
            yield from misbehaviour(outcome)
            if outcome.code != 0:
                yield failure(f"{self.combination}: {command} fails afterwards", outcome)
                return
        if others := otherwise(folder, alone):
            yield failure(f"{self.combination}: results differ from a sequence", outcome, f"{', '.join(others[:8])}\n")


def _while_together(state: str, commands: tuple[str, ...], outcomes: list[Outcome]) -> Iterator[Failure]:
    ended_well = {command for command, outcome in zip(commands, outcomes, strict=True) if outcome.code == 0}
    for command, outcome in zip(commands, outcomes, strict=True):
        yield from misbehaviour(outcome)
        may_fail = command in _NOT_YET.get(state, ()) or (command in _MAY_BE_REFUSED and command in ended_well)
        if outcome.code != 0 and "Traceback" not in outcome.err and not may_fail:
            yield failure(
                f"{command} together with {', '.join(sorted(set(commands)))} ends with {outcome.code}", outcome
            )
