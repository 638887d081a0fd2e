"""Files that are changed, and commands that read them."""

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
        target: the file, a key of `targets.TARGETS`.
        change: the change, a key of the target's changes.
        size: the number of changed pieces.
        number: the seed of the change.
        reader: the command, a key of `world.COMMANDS`.
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
        """The group that the case is counted in."""
        return self.kind

    @classmethod
    def draw(cls, rng: Random) -> "Mutated":
        """Draw a random case."""
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
        """Parse a case from its words."""
        subject, target, change, size, number, reader = words
        return cls(subject, target, change, int(size), int(number), reader.replace("-", " "))

    def simpler(self) -> Iterator["Mutated"]:
        """Yield cases with simpler or smaller changes, the simplest run, or faster commands."""
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
        """Run the case in an empty folder."""
        target = TARGETS[self.target]
        copy(world.state(self.subject, target.state), folder)
        given = Input(latest(folder, target.path), latest(folder, target.twin))
        target.changes[self.change](given, Random(self.number), self.size)
        before = nodes(folder)
        outcome = run(words_of(self.subject, self.reader), folder)
        failures = [*misbehaviour(outcome), *harm(before, folder, outcome, MAY_WRITE[self.reader])]
        if outcome.code == 0:
            answer = world.answer(self.subject, target.state, self.reader)
            failures += self._undetected_change(folder, outcome, answer)
        counts = Counter({"mutated": 1, "accepted" if outcome.code == 0 else "refused": 1})
        counts["pickles"] += "pickle" in self.change
        return Verdict(counts, failures)

    def _undetected_change(self, folder: Path, outcome: Outcome, answer: Answer) -> Iterator[Failure]:
        """Yield a failure if the results are not allowed after the change, and no message says why."""
        rule = TARGETS[self.target].rule(self.change, self.reader)
        if rule == "any" or (rule == "noticed" and outcome.err != answer.outcome.err):
            return
        try:
            found, expected = self._part(folder, outcome), self._part(answer.folder, answer.outcome)
        except Exception as error:
            yield failure(f"{self.target} changed, {self.reader} leaves unreadable results", outcome, f"{error!r}\n")
            return
        others = differences(found, expected)
        if rule == "noticed" or (rule == "same" and others) or (rule == "others" and not others):
            what = f"{self.target} {'swapped' if self.change == 'swap' else 'changed'}, {self.reader} says nothing"
            yield failure(f"falsified: {what}", outcome, f"{rule}: {', '.join(others[:6])}\n")

    def _part(self, folder: Path, outcome: Outcome) -> Any:
        part = PARTS[self.reader](folder) if self.reader in PARTS else outcome.out
        return {name: value for name, value in part.items() if name != "config"} if isinstance(part, dict) else part


def nodes(folder: Path) -> dict[str, bytes | str]:
    """Return everything below a folder: contents of files, targets of links, and types of other nodes."""
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
    """Yield failures for files that a command must not change, temporary files, and executed pickles."""
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
