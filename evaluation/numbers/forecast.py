"""The interface of a forecast that scores of numbers use, and the validation of targets."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_tensor


@runtime_checkable
class Forecast(Protocol):
    """A predictive distribution for each target of each example: a `Predictive`, or a recalibrated one."""

    @property
    def shape(self) -> torch.Size:
        """The shape of the targets, ``[example, *output]``."""
        ...

    @property
    def is_discrete(self) -> bool:
        """Whether targets are counts or labels."""
        ...

    def log_prob(self, targets: Num[Tensor, "example *output"]) -> Float[Tensor, "example"]:
        """The joint log density, or log-probability, of the targets of each example."""
        ...

    def cdf(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of values less than or equal to `values`."""
        ...

    def cdf_below(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of values less than `values`."""
        ...

    def quantile(self, levels: Sequence[float]) -> Float[Tensor, "level example *output"]:
        """The smallest values at which the cdf reaches each level."""
        ...


def check_targets(forecast: Forecast, targets: Tensor) -> Float[Tensor, "example *output"]:
    """Check targets against a forecast, and convert them to float64.

    Raises:
        InputError: if the targets are not a tensor, have another shape than the forecast, are empty, or are not finite.
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
    """Average over the outputs of each example."""
    return values.double().reshape(len(values), -1).mean(-1)
