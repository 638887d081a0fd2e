"""What a score of numbers reads off a distribution, and what it asks of targets."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_tensor


@runtime_checkable
class Forecast(Protocol):
    """A distribution of each target of each example: a `Predictive`, or a recalibrated one."""

    @property
    def shape(self) -> torch.Size:
        """``[example, *output]``."""
        ...

    @property
    def is_discrete(self) -> bool:
        """Whether targets are counts or labels."""
        ...

    def log_prob(self, targets: Num[Tensor, "example *output"]) -> Float[Tensor, "example"]:
        """The log density, or log probability, of all targets of an example together."""
        ...

    def cdf(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of at most these values."""
        ...

    def cdf_below(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of less than these values."""
        ...

    def quantile(self, levels: Sequence[float]) -> Float[Tensor, "level example *output"]:
        """The smallest values at which the cdf reaches some levels."""
        ...


def check_targets(forecast: Forecast, targets: Tensor) -> Float[Tensor, "example *output"]:
    """The targets in float64.

    Raises:
        InputError: something other than a tensor, another shape than the forecast's, no examples, or targets that are
            not finite.
    """
    check_tensor("targets", targets)
    if targets.shape != forecast.shape:
        raise InputError(f"the targets must have shape {list(forecast.shape)}, and have {list(targets.shape)}")
    if not targets.numel():
        raise InputError("there are no targets to score")
    if bool((bad := ~targets.isfinite()).any()):
        raise InputError(f"targets that are not finite: {int(bad.sum())} of {bad.numel()}")
    return targets.double()


def by_example(values: Float[Tensor, "example *output"]) -> Float[Tensor, "example"]:
    """The mean over the outputs of each example."""
    return values.double().reshape(len(values), -1).mean(-1)
