"""Runs in folders with unusual names."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

from tests.campaign.check import failure, misbehaviour
from tests.campaign.hostile import TEXTS
from tests.campaign.process import run
from tests.campaign.verdict import Verdict
from tests.campaign.world import SUBJECTS, World, copy
from tests.states import leaves

_LONGEST = 255  # bytes of a file's name


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..", "run") and "/" not in text and len(os.fsencode(text)) <= _LONGEST


NAMES = [*filter(_is_name, TEXTS), "\udcff", "a\udce9b", "x" * 255]
"""Folder names that the system allows."""

_COMMANDS = ("evaluate", "report", "fit", "load_run")


@dataclass(frozen=True)
class Named:
    """A command on a run whose folder has an unusual name.

    Args:
        name: an index of `NAMES`.
        command: "evaluate", which compares the run with another one, "report", "fit" or "load_run".
    """

    kind: ClassVar[str] = "named"
    name: int
    command: str

    @property
    def group(self) -> str:
        """The group that the case is counted in."""
        return self.kind

    @classmethod
    def draw(cls, rng: Random) -> "Named":
        """Draw a random case."""
        [command] = rng.choices(_COMMANDS, (3, 1, 2, 1))
        return cls(rng.randrange(len(NAMES)), command)

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.command}"

    @classmethod
    def parse(cls, words: list[str]) -> "Named":
        """Parse a case from its words."""
        return cls(int(words[0]), words[1])

    def simpler(self) -> Iterator["Named"]:
        """Return no cases: there are no simpler ones."""
        return iter(())

    def run(self, world: World, folder: Path) -> Verdict:
        """Run the case in an empty folder."""
        copy(world.state("map", "probed"), folder)
        name = f"./{NAMES[self.name]}"
        if self.command != "fit":
            (folder / "run").rename(folder / name)
        words = {
            "evaluate": ["evaluate", name, "other"],
            "report": ["report", name, "-o", "r.html", "--json", "r.json", "--csv", "r.csv", "--figures", "figures"],
            "fit": [*SUBJECTS["map"], "--out", name, "--no-progress"],
            "load_run": ["load_run", name],
        }[self.command]
        outcome = run(words, folder)
        failures = [*misbehaviour(outcome)]
        if outcome.code != 0 and not failures:
            failures.append(failure("a run with an unusual name is refused", outcome))
        if self.command == "report" and outcome.code == 0:
            answer = world.answer("map", "probed", "report").folder
            if _numbers(folder) != _numbers(answer):
                failures.append(failure("a run with an unusual name has other values", outcome))
        return Verdict(Counter({"unusual names": 1}), failures)


def _numbers(folder: Path) -> Counter[float]:
    report = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    return Counter(value for _, value in leaves(report) if isinstance(value, int | float))
