"""The draws that a Markov chain keeps: which of its steps, and in which order they are given out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bayes_share.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Thinning:
    """Which steps of a chain are kept: none of the first ones, then at most so many, evenly spaced.

    Args:
        num_steps: of the whole chain.
        skipped: part of them, from the first on, that is not kept; at least one step is left.
        keep: how many are kept; all that are left where these are fewer. The last step is always kept.

    >>> [step for step in range(12) if Thinning(12, skipped=0.5, keep=3).keeps(step)]
    [7, 9, 11]
    """

    num_steps: int
    skipped: float
    keep: int

    @property
    def first(self) -> int:
        """How many steps are skipped."""
        return min(math.ceil(self.skipped * self.num_steps), self.num_steps - 1)

    def keeps(self, step: int) -> bool:
        """Whether the position after this step, which counts from 0, is kept."""
        left = self.num_steps - self.first
        done = step - self.first
        return done >= 0 and (done + 1) * self.keep // left > done * self.keep // left


def check_thinning(name: str, skipped: float, keep: int) -> None:
    """Raise an InputError where a part of the steps, or a number of draws to keep, cannot be.

    Args:
        name: of the option that says which part is skipped.
        skipped: see `Thinning`.
        keep: see `Thinning`.
    """
    if not 0 <= skipped < 1:
        raise InputError(f"{name} is a part of all steps, from 0 to below 1, and is {skipped}")
    if keep < 1:
        raise InputError(f"at least 1 draw is kept, not {keep}")


def spread(kept: Sequence[T], sample: int) -> T:
    """Draw number `sample` of those that are kept: the latest first, and then far from the ones before.

    The order is van der Corput's (1935): a half, a quarter, three quarters of the way back, and so on; after the last
    one it begins anew.

    >>> [spread("abcdefgh", sample) for sample in range(8)]
    ['h', 'd', 'f', 'b', 'g', 'c', 'e', 'a']
    """
    return kept[_place(len(kept), sample)]


def chain_order(num_kept: int, num_samples: int) -> list[int]:
    """The numbers of the first draws in the order in which the chain kept them, each of its positions once.

    What asks how a chain moved, such as an effective sample size, needs draws in this order, and not in that of
    `spread`.

    Args:
        num_kept: draws that the chain kept.
        num_samples: draws that were given out, from number 0 on.

    >>> chain_order(8, 4), chain_order(2, 4)
    ([3, 1, 2, 0], [1, 0])
    """
    return sorted(range(min(num_kept, num_samples)), key=lambda sample: _place(num_kept, sample))


def _place(num_kept: int, sample: int) -> int:
    order = sorted(range(num_kept), key=_radical_inverse)
    return num_kept - 1 - order[sample % num_kept]


def _radical_inverse(number: int) -> float:
    """The binary digits of a number, mirrored at the point: 6 = 110 becomes 0.011."""
    return int(f"{number:b}"[::-1], 2) / 2 ** max(1, number.bit_length())
