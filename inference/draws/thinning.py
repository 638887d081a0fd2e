"""The samples that a Markov chain keeps: at which steps, and in which order they are drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bayes_share.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Thinning:
    """Which samples of a chain are kept: none of the burn-in, then at most `keep`, evenly spaced.

    Args:
        num_steps: number of steps of the whole chain.
        skipped: fraction of the steps, from the first on, that is not kept. At least one step is left.
        keep: number of samples to keep, or all if fewer steps are left. The last step is always kept.

    >>> [step for step in range(12) if Thinning(12, skipped=0.5, keep=3).keeps(step)]
    [7, 9, 11]
    """

    num_steps: int
    skipped: float
    keep: int

    @property
    def first(self) -> int:
        """The number of skipped steps."""
        return min(math.ceil(self.skipped * self.num_steps), self.num_steps - 1)

    def keeps(self, step: int) -> bool:
        """Return whether the sample after this step, counted from 0, is kept."""
        left = self.num_steps - self.first
        done = step - self.first
        return done >= 0 and (done + 1) * self.keep // left > done * self.keep // left


def check_thinning(name: str, skipped: float, keep: int) -> None:
    """Raise InputError if the skipped fraction or the number of samples is out of range.

    Args:
        name: name of the option for the skipped fraction.
        skipped: see `Thinning`.
        keep: see `Thinning`.
    """
    if not 0 <= skipped < 1:
        raise InputError(f"{name} must be a fraction of all steps, at least 0 and below 1, and is {skipped}")
    if keep < 1:
        raise InputError(f"keep must be at least 1, and is {keep}")


def spread(kept: Sequence[T], sample: int) -> T:
    """Return draw number `sample` from the kept samples: the latest first, then samples far from the previous ones.

    The order is the van der Corput sequence (1935): the latest, then a half, a quarter, three quarters of the way back,
    and so on. It repeats after the last sample.

    >>> [spread("abcdefgh", sample) for sample in range(8)]
    ['h', 'd', 'f', 'b', 'g', 'c', 'e', 'a']
    """
    return kept[_place(len(kept), sample)]


def chain_order(num_kept: int, num_samples: int) -> list[int]:
    """Return the indices of the first draws in the order of the chain, each sample once.

    Statistics of the chain's movement, such as effective sample sizes, require draws in this order, not in that of
    `spread`.

    Args:
        num_kept: number of samples that the chain kept.
        num_samples: number of draws, from number 0 on.

    >>> chain_order(8, 4), chain_order(2, 4)
    ([3, 1, 2, 0], [1, 0])
    """
    return sorted(range(min(num_kept, num_samples)), key=lambda sample: _place(num_kept, sample))


def _place(num_kept: int, sample: int) -> int:
    order = sorted(range(num_kept), key=_radical_inverse)
    return num_kept - 1 - order[sample % num_kept]


def _radical_inverse(number: int) -> float:
    """Return the number with its binary digits mirrored at the point: 6 = 110 becomes 0.011."""
    return int(f"{number:b}"[::-1], 2) / 2 ** max(1, number.bit_length())
