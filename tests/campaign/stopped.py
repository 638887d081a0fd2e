"""Commands that are stopped repeatedly, and then run to the end."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.campaign.check import INTERRUPTED, LINE, Failure, failure, misbehaviour, otherwise, runs_in
from tests.campaign.faults import Fault
from tests.campaign.process import Outcome, run
from tests.campaign.verdict import Verdict
from tests.campaign.world import SUBJECTS, TASKS, World, copy, words_of

_WEIGHTS = {"fit": 12, "resume": 3, "ood": 3, "report": 1, "study": 1}
_ONLY_MAP = ("report", "study")  # slow, and the same for all
_SAVES = ("fit", "resume", "study")  # commands that save and clean up on SIGTERM, which kills the others
_SWALLOWED = re.compile(r"Exception ignored in.*\nTraceback .*\n(?: .*\n)*\S*(?:KeyboardInterrupt|InterruptedRun).*\n")
_KINDS = {"kill": ("kill",), "interrupt": ("interrupt", "terminate"), "full": ("full",)}


@dataclass(frozen=True)
class Stopped:
    """A command that is started repeatedly with one fault each time, and must then end as if undisturbed.

    Args:
        subject: a key of `world.SUBJECTS`.
        task: a key of `world.TASKS`.
        every_step: whether a fit saves a checkpoint after each step.
        faults: the faults in order.
    """

    kind: ClassVar[str] = "stop"
    subject: str
    task: str
    every_step: bool
    faults: tuple[Fault, ...]

    @property
    def group(self) -> str:
        """The group that the case is counted in."""
        return next(group for group, whats in _KINDS.items() if self.faults[0].what in whats)

    @classmethod
    def draw(cls, rng: Random, group: str) -> "Stopped":
        """Draw a random case of a group, a key of `_KINDS`."""
        [task] = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        subject = "map" if task in _ONLY_MAP else rng.choice(list(SUBJECTS))
        count = rng.choice((1, 1, 1, 2, 2, 3))
        faults = tuple(Fault.draw(rng.choice(_KINDS[group]), rng) for _ in range(count))
        return cls(subject, task, task == "fit" and rng.random() < 0.6, faults)

    def __str__(self) -> str:
        rhythm = "steps" if self.every_step else "epochs"
        return " ".join([self.kind, self.subject, self.task.replace(" ", "-"), rhythm, *map(str, self.faults)])

    @classmethod
    def parse(cls, words: list[str]) -> "Stopped":
        """Parse a case from its words."""
        subject, task, rhythm, *faults = words
        return cls(subject, task.replace("-", " "), rhythm == "steps", tuple(map(Fault.parse, faults)))

    def simpler(self) -> Iterator["Stopped"]:
        """Yield cases with fewer faults, without second signals, or with the simplest run."""
        if len(self.faults) > 1:
            yield from (replace(self, faults=(fault,)) for fault in self.faults)
            yield from (replace(self, faults=self.faults[:i] + self.faults[i + 1 :]) for i in range(len(self.faults)))
        for i, fault in enumerate(self.faults):
            if fault.again:
                yield replace(self, faults=(*self.faults[:i], replace(fault, again=0.0), *self.faults[i + 1 :]))
        if self.subject != "map":
            yield replace(self, subject="map")

    def run(self, world: World, folder: Path) -> Verdict:
        """Run the case in an empty folder."""
        copy(world.state(self.subject, TASKS[self.task]), folder)
        answer = world.answer(self.subject, TASKS[self.task], self.task)
        words = words_of(self.subject, self.task)
        counts, failures = Counter[str](), list[Failure]()
        for fault in self.faults:
            rhythm = ["--checkpoint-minutes", "0"] if self.every_step else []
            was_begun = bool(runs_in(folder))
            outcome = run([*words, *rhythm], folder, fault, answer.outcome.counts)
            counts[f"{fault.what} delivered"] += outcome.code != 0
            failures += _after(fault, outcome, self.task in _SAVES and (was_begun or bool(runs_in(folder))))
        outcome = run(words, folder)
        counts["resumed"] += 1
        failures += [*misbehaviour(outcome)]
        if outcome.code != 0 and not failures:
            failures.append(failure("a stopped command cannot be resumed", outcome))
        if outcome.code == 0 and (others := otherwise(folder, answer.folder)):
            found = f"different: {', '.join(others[:8])}\n"
            failures.append(failure("a stopped command has other results once resumed", outcome, found))
        if self.task in _SAVES and (rest := [*folder.glob("run/**/*.tmp"), *folder.glob("study/**/*.tmp")]):
            failures.append(failure("a temporary file is left", outcome, f"{rest[0].name}\n"))
        if self.task == "ood" and outcome.code == 0 and outcome.out != answer.outcome.out:
            failures.append(failure("a stopped command has another output once resumed", outcome, outcome.out))
        return Verdict(counts, failures)


def _after(fault: Fault, outcome: Outcome, has_to_save: bool) -> Iterator[Failure]:
    """Yield the failures of a command after a fault."""
    if outcome.code == -9 and fault.what == "kill":
        return
    if outcome.code == -15 and fault.what == "terminate" and not has_to_save:
        return
    if outcome.code < 0:
        yield failure(f"{outcome.words[0]} ends with {outcome.code} after {fault.what}", outcome)
        return
    # Python ignores an exception that a signal raises while an object is deleted, and reports it on stderr.
    outcome = replace(outcome, err=_SWALLOWED.sub("", outcome.err))
    yield from misbehaviour(outcome)
    allowed: tuple[int, ...] = {"kill": (), "interrupt": INTERRUPTED, "terminate": INTERRUPTED, "full": (1,)}[
        fault.what
    ]
    if outcome.words[0] == "study":
        allowed = (*allowed, 1)  # the signal hit one of its workers
    if outcome.code not in (0, *allowed) and "Traceback" not in outcome.err:
        said = outcome.err.splitlines()[-1].removeprefix(LINE)[:40] if outcome.err else "nothing"
        yield failure(f"exit code {outcome.code} after {fault.what}, with {said!r}", outcome)
