"""Cases of all kinds, drawn from a seed or read from a line of text."""

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
    """Something to try, whose text says all of it."""

    kind: ClassVar[str]

    @property
    def group(self) -> str:
        """What it counts as."""

    @classmethod
    def parse(cls, words: list[str]) -> Self:
        """The case that ``str`` gave, from the words after its kind."""

    def simpler(self) -> Iterator["Case"]:
        """Cases that try less, the least first."""

    def run(self, world: World, folder: Path) -> Verdict:
        """Try it in a folder, which is empty."""


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
"""How often each kind is drawn, and how."""


def draw(seed: int, number: int) -> Case:
    """The case of a number, the same one each time."""
    rng = Random(f"{seed}-{number}")
    [make] = rng.choices([make for _, make in _DRAWS], [weight for weight, _ in _DRAWS])
    return make(rng)


def parse(text: str) -> Case:
    """The case that ``str`` gave."""
    kind, *words = text.split()
    return _KINDS[kind].parse(words)
