"""Centre and scale of standardised targets and inputs."""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Num
from torch import Tensor

from bayes_share.errors import InputError

SQUARED = (1e-150, 1e150)
"""The range of values whose squares, and sums of many squares, neither underflow nor overflow in float64."""

_ULPS = 4  # the rounding error, in units in the last place, up to which values are considered equal


@dataclass(frozen=True, eq=False)
class Units:
    """The centre and scale of standardised values: ``standardised = (value - centre) / scale``.

    Args:
        centre: ``[*target]``, in the original units.
        scale: ``[*target]``, in the original units; positive.

    Raises:
        InputError: if a value is not finite, or a scale is not positive.
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
        """Compute the mean and standard deviation of targets. Targets that are equal up to rounding get a scale of 1.

        If each example has a single target, centre and scale have no axes.

        Args:
            targets: all targets ``[example, *target]``.
            weights: the non-negative weight of each example; None: equal weights.

        Raises:
            InputError: if there are no targets, or a target is not finite.
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
        deviations = values - centre
        unit = deviations.abs().amax(0)  # divided by this, so that squares do not underflow or overflow
        unit = torch.where(unit > 0, unit, 1.0)
        scale = unit * torch.tensordot(shares.to(values), (deviations / unit).square(), 1).sqrt()
        lowest, highest = values.amin(0), values.amax(0)
        info = torch.finfo(targets.dtype if targets.is_floating_point() else values.dtype)
        rounding = _ULPS * info.eps * torch.maximum(lowest.abs(), highest.abs())
        return cls(centre, torch.where((highest - lowest > rounding) & (scale > 0), scale, 1.0))

    def __str__(self) -> str:
        return f"centre={in_words(self.centre)}, unit={in_words(self.scale)}"


def in_words(values: Tensor) -> str:
    """Format a value, or a list of values, for printing."""
    formatted = [f"{value:.4g}" for value in values.detach().flatten().tolist()]
    return formatted[0] if len(formatted) == 1 else f"[{', '.join(formatted)}]"
