"""The units of targets and inputs that a network takes standardised."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Num
from torch import Tensor

from bayes_share.errors import InputError

SQUARED = (1e-150, 1e150)
"""Numbers between these have squares, and sums of many of them, in float64."""

_ULPS = 4  # by which numbers may differ that are meant to be the same


@dataclass(frozen=True, eq=False)
class Units:
    """Where 0 and 1 of standardised targets lie in the targets' own units.

    Args:
        centre: ``[*target]``, the 0.
        scale: ``[*target]``, the distance from 0 to 1; positive.

    Raises:
        InputError: numbers that are not finite, or a scale that is not positive.
    """

    centre: Float64[Tensor, "*target"]
    scale: Float64[Tensor, "*target"]

    def __post_init__(self) -> None:
        if not bool((self.scale > 0).all()) or not all(
            bool(part.isfinite().all()) for part in (self.centre, self.scale)
        ):
            raise InputError(f"the scale must be positive and the centre finite: {self}")

    @classmethod
    def of(cls, targets: Num[Tensor, "example *target"], weights: Num[Tensor, "example"] | None = None) -> "Units":
        """Mean and standard deviation of some targets; those that are alike, to rounding, have a scale of 1.

        An axis of one target is left out.

        Args:
            targets: all of them.
            weights: how often each example counts, not negative; None: all alike.

        Raises:
            InputError: no target, or targets that are not finite.
        """
        if weights is not None:
            targets, weights = targets[weights > 0], weights[weights > 0].double()
        if not len(targets):
            raise InputError("standardisation requires at least one target")
        values = targets.double()
        if not bool(values.isfinite().all()):
            raise InputError("the targets contain NaN or infinity")
        values = values.flatten() if values[0].numel() == 1 else values
        shares = values.new_full((len(values),), 1 / len(values)) if weights is None else weights / weights.sum()
        centre = torch.tensordot(shares.to(values), values, 1)
        around = values - centre
        unit = around.abs().amax(0)  # whose square may be 0 or infinite where it is not
        unit = torch.where(unit > 0, unit, 1.0)
        scale = unit * torch.tensordot(shares.to(values), (around / unit).square(), 1).sqrt()
        lowest, highest = values.amin(0), values.amax(0)
        kind = torch.finfo(targets.dtype if targets.is_floating_point() else values.dtype)
        rounding = _ULPS * kind.eps * torch.maximum(lowest.abs(), highest.abs())
        return cls(centre, torch.where((highest - lowest > rounding) & (scale > 0), scale, 1.0))

    def __str__(self) -> str:
        return f"centre={in_words(self.centre)}, unit={in_words(self.scale)}"


def in_words(values: Tensor) -> str:
    """One number, or all of a few, for printing."""
    several = [f"{number:.4g}" for number in values.detach().flatten().tolist()]
    return several[0] if len(several) == 1 else f"[{', '.join(several)}]"
