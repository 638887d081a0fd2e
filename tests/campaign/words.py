"""Command lines with unexpected words."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.campaign import hostile
from tests.campaign.check import misbehaviour
from tests.campaign.mutated import harm, nodes
from tests.campaign.process import run
from tests.campaign.verdict import Verdict
from tests.campaign.world import World, copy, words_of

_COMMANDS = ("fit", "resume", "evaluate", "ood", "corruptions", "report", "config", "study", "fit folder")
_NODES = (
    "fifo",
    "loop",
    "null",
    "link",
    "images",
    "d.npz",
    "run/predictions",
    "run/predictions/test.npz",
    "run/config.yaml",
)
_MAY_WRITE = ("run/reliability.png", "run/predictions/*", "*.npz", "images*", "other/reliability.png")


@dataclass(frozen=True)
class Words:
    """A command line in which some words are changed.

    Args:
        subject: a key of `world.SUBJECTS`.
        command: a key of `world.COMMANDS`.
        size: the number of changed words.
        number: the seed of the changes.
    """

    kind: ClassVar[str] = "words"
    subject: str
    command: str
    size: int
    number: int

    @property
    def group(self) -> str:
        """The group that the case is counted in."""
        return self.kind

    @classmethod
    def draw(cls, rng: Random) -> "Words":
        """Draw a random case."""
        return cls("map", rng.choice(_COMMANDS), rng.choice((1, 1, 2, 3)), rng.randrange(10**6))

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.command.replace(' ', '-')} {self.size} {self.number}"

    @classmethod
    def parse(cls, words: list[str]) -> "Words":
        """Parse a case from its words."""
        subject, command, size, number = words
        return cls(subject, command.replace("-", " "), int(size), int(number))

    def simpler(self) -> Iterator["Words"]:
        """Yield cases with one changed word instead of several."""
        if self.size > 1:
            yield from (replace(self, size=1, number=self.number + more) for more in range(8))

    def run(self, world: World, folder: Path) -> Verdict:
        """Run the case in an empty folder."""
        copy(world.state(self.subject, "probed"), folder)
        _add_nodes(folder)
        before = {name: node for name, node in nodes(folder).items() if name != "d.npz"}
        words, rng = list(words_of(self.subject, self.command)), Random(self.number)
        for _ in range(self.size):
            words = _with_another(words, rng)
        outcome = run(words, folder)
        failures = [*misbehaviour(outcome), *harm(before, folder, outcome, _MAY_WRITE)]
        return Verdict(Counter({"mutated": 1, "accepted" if outcome.code == 0 else "refused": 1}), failures)


def _add_nodes(folder: Path) -> None:
    """Create special files in the folder that words may name."""
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "link").symlink_to("run/predictions/test.npz")
    with suppress(PermissionError):
        os.mknod(folder / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _with_another(words: list[str], rng: Random) -> list[str]:
    """Replace, remove, repeat or insert one word, except the name of the command."""
    if len(words) < 2:
        return words
    at, other = rng.randrange(1, len(words)), rng.choice([*hostile.TEXTS, *_NODES, "\udcff.npz", "--resume", "--help"])
    how = rng.random()
    if how < 0.6:
        new = [other]
    elif how < 0.7:
        new = []
    elif how < 0.8:
        new = [words[at], words[at]]
    elif how < 0.9:
        new = [other, words[at]]
    else:
        new = [f"{words[at]}={other}"]
    return [*words[:at], *new, *words[at + 1 :]]
