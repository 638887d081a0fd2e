"""Command lines in which words are others than anybody would write."""

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
    """A command line in which some words are others.

    Args:
        subject: a key of `world.SUBJECTS`.
        command: a key of `world.COMMANDS`.
        size: how many words are others.
        number: from which they are drawn.
    """

    kind: ClassVar[str] = "words"
    subject: str
    command: str
    size: int
    number: int

    @property
    def group(self) -> str:
        """What the case counts as."""
        return self.kind

    @classmethod
    def draw(cls, rng: Random) -> "Words":
        """Any one."""
        return cls("map", rng.choice(_COMMANDS), rng.choice((1, 1, 2, 3)), rng.randrange(10**6))

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} {self.command.replace(' ', '-')} {self.size} {self.number}"

    @classmethod
    def parse(cls, words: list[str]) -> "Words":
        """The case that was written like that."""
        subject, command, size, number = words
        return cls(subject, command.replace("-", " "), int(size), int(number))

    def simpler(self) -> Iterator["Words"]:
        """One word in place of several."""
        if self.size > 1:
            yield from (replace(self, size=1, number=self.number + more) for more in range(8))

    def run(self, world: World, folder: Path) -> Verdict:
        """Try it in a folder, which is empty."""
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
    """What a path can lead to that is no file, and none of this machine's own."""
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "link").symlink_to("run/predictions/test.npz")
    with suppress(PermissionError):
        os.mknod(folder / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))


def _with_another(words: list[str], rng: Random) -> list[str]:
    """All words but the command's own name, with one that is another, or missing, or there twice."""
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
