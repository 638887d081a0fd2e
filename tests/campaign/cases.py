"""Cases of all kinds, drawn from a seed or parsed from text."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import ClassVar, Protocol, Self

from tests.campaign.mutated import Mutated
from tests.campaign.named import Named
from tests.campaign.stopped import Stopped
from tests.campaign.together import Together
from tests.campaign.verdict import Verdict
from tests.campaign.words import Words
from tests.campaign.world import World


class Case(Protocol):
    """A test case that its text describes completely."""

    kind: ClassVar[str]

    @property
    def group(self) -> str:
        """The group that the case is counted in."""

    @classmethod
    def parse(cls, words: list[str]) -> Self:
        """Parse a case from the words that follow its kind in ``str``."""

    def simpler(self) -> Iterator["Case"]:
        """Yield simpler cases, the simplest first."""

    def run(self, world: World, folder: Path) -> Verdict:
        """Run the case in an empty folder."""


_KINDS: dict[str, type[Case]] = {kind.kind: kind for kind in (Stopped, Together, Mutated, Words, Named)}

_DRAWS: list[tuple[int, Callable[[Random], Case]]] = [
    (17, partial(Stopped.draw, group="kill")),
    (7, partial(Stopped.draw, group="interrupt")),
    (5, partial(Stopped.draw, group="full")),
    (3, Together.draw),
    (60, Mutated.draw),
    (7, Words.draw),
    (2, Named.draw),
]
"""The relative frequency of each kind, and how to draw it."""


def draw(seed: int, number: int) -> Case:
    """Draw the case with a number. The same seed and number give the same case."""
    rng = Random(f"{seed}-{number}")
    [make] = rng.choices([make for _, make in _DRAWS], [weight for weight, _ in _DRAWS])
    return make(rng)


def parse(text: str) -> Case:
    """Parse a case from the text that ``str`` gave."""
    kind, *words = text.split()
    return _KINDS[kind].parse(words)
