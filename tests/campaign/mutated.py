"""A file that is changed, and a command that reads it."""

import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from tests.campaign.check import Failure, failure, misbehaviour
from tests.campaign.inputs import Input, latest
from tests.campaign.process import Outcome, run
from tests.campaign.states import MARK
from tests.campaign.targets import MAY_WRITE, PARTS, SLOW, TARGETS, WEIGHTS
from tests.campaign.verdict import Verdict
from tests.campaign.world import SUBJECTS, Answer, World, copy, words_of
from tests.states import differences


@dataclass(frozen=True)
class Mutated:
    """A file that is changed, and a command that reads it.

    Args:
        subject: a key of `world.SUBJECTS`.
        target: a key of `targets.TARGETS`: the file.
        change: a key of its changes.
        size: how many pieces of it.
        number: from which the change is drawn.
        reader: a key of `world.COMMANDS`.
    """

    kind: ClassVar[str] = "mutate"
    subject: str
    target: str
    change: str
    size: int
    number: int
    reader: str

    @property
    def group(self) -> str:
        """What the case counts as."""
        return self.kind

    @classmethod
    def draw(cls, rng: Random) -> "Mutated":
        """Any one."""
        [name] = rng.choices(list(TARGETS), [WEIGHTS.get(name, 1.0) for name in TARGETS])
        target = TARGETS[name]
        subject = rng.choice(target.subjects or [*SUBJECTS, *["map"] * len(SUBJECTS)])
        [reader] = rng.choices(list(target.readers), [0.3 if reader in SLOW else 1.0 for reader in target.readers])
        change = rng.choice(list(target.changes))
        return cls(subject, name, change, rng.choice((1, 1, 2, 4)), rng.randrange(10**6), reader)

    def __str__(self) -> str:
        reader = self.reader.replace(" ", "-")
        return f"{self.kind} {self.subject} {self.target} {self.change} {self.size} {self.number} {reader}"

    @classmethod
    def parse(cls, words: list[str]) -> "Mutated":
        """The case that was written like that."""
        subject, target, change, size, number, reader = words
        return cls(subject, target, change, int(size), int(number), reader.replace("-", " "))

    def simpler(self) -> Iterator["Mutated"]:
        """Smaller changes of the same kind, the simplest run, quicker readers."""
        target = TARGETS[self.target]
        for change in ("empty", "folder", "swap"):
            if self.change != change and change in target.changes and self.change not in ("empty", "folder", "swap"):
                yield replace(self, change=change, size=1, number=0)
        if self.subject != "map" and not target.subjects:
            yield replace(self, subject="map")
        if self.size > 1:
            yield from (replace(self, size=1, number=self.number + more) for more in range(8))
        if self.reader in SLOW:
            yield from (replace(self, reader=reader) for reader in target.readers if reader not in SLOW)

    def run(self, world: World, folder: Path) -> Verdict:
        """Try it in a folder, which is empty."""
        target = TARGETS[self.target]
        copy(world.state(self.subject, target.state), folder)
        given = Input(latest(folder, target.path), latest(folder, target.twin))
        target.changes[self.change](given, Random(self.number), self.size)
        before = nodes(folder)
        outcome = run(words_of(self.subject, self.reader), folder)
        failures = [*misbehaviour(outcome), *harm(before, folder, outcome, MAY_WRITE[self.reader])]
        if outcome.code == 0:
            answer = world.answer(self.subject, target.state, self.reader)
            failures += self._falsehood(folder, outcome, answer)
        counts = Counter({"mutated": 1, "accepted" if outcome.code == 0 else "refused": 1})
        counts["pickles"] += "pickle" in self.change
        return Verdict(counts, failures)

    def _falsehood(self, folder: Path, outcome: Outcome, answer: Answer) -> Iterator[Failure]:
        """Whether the results are such as they must not be without a word."""
        rule = TARGETS[self.target].rule(self.change, self.reader)
        if rule == "any" or (rule == "noticed" and outcome.err != answer.outcome.err):
            return
        try:
            found, expected = self._part(folder, outcome), self._part(answer.folder, answer.outcome)
        except Exception as error:
            yield failure(f"{self.target} changed, {self.reader} leaves what cannot be read", outcome, f"{error!r}\n")
            return
        others = differences(found, expected)
        if rule == "noticed" or (rule == "same" and others) or (rule == "others" and not others):
            what = f"{self.target} {'swapped' if self.change == 'swap' else 'changed'}, {self.reader} says nothing"
            yield failure(f"falsified: {what}", outcome, f"{rule}: {', '.join(others[:6])}\n")

    def _part(self, folder: Path, outcome: Outcome) -> Any:
        part = PARTS[self.reader](folder) if self.reader in PARTS else outcome.out
        return {name: value for name, value in part.items() if name != "config"} if isinstance(part, dict) else part


def nodes(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: bytes of files, targets of links, and the kinds of other nodes."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(folder))
        if stat.S_ISLNK(mode):
            found[name] = f"link to {os.readlink(path)}"
        elif stat.S_ISREG(mode):
            found[name] = path.read_bytes()
        elif not stat.S_ISDIR(mode):
            found[name] = f"node {stat.S_IFMT(mode):o}"
    return found


def harm(
    before: dict[str, bytes | str], folder: Path, outcome: Outcome, may_write: tuple[str, ...]
) -> Iterator[Failure]:
    """Files that a command changed that it must not change, and what was executed."""
    if (folder / MARK).exists():
        shutil.rmtree(folder / MARK)
        yield failure("a pickle was executed", outcome)
    after = nodes(folder)
    allowed = may_write if outcome.code != 2 else tuple(name for name in may_write if name.endswith(".png"))
    changed = [name for name in before if after.get(name) != before[name]]
    lost = [name for name in changed if not any(fnmatch(name, pattern) for pattern in allowed)]
    lost = [name for name in lost if not name.endswith((".tmp", ".lock"))]
    if lost:
        yield failure(
            f"exit code {outcome.code}, and {Path(lost[0]).suffix} is changed", outcome, f"{', '.join(lost)}\n"
        )
    if left := [name for name in after if name.endswith(".tmp") and name not in before]:
        yield failure("a temporary file is left", outcome, f"{', '.join(left)}\n")
