"""Distributions of torch with the cumulative distribution functions that torch lacks, which have no gradient."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution


class Bernoulli(distributions.Bernoulli):
    """0 or 1.

    >>> Bernoulli(torch.tensor(0.25).double()).cdf(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.0000, 0.7500, 1.0000], dtype=torch.float64)
    """

    @torch.no_grad()
    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most a value."""
        no = (-self.logits).sigmoid()
        return torch.where(value < 0, 0.0, torch.where(value < 1, no, 1.0))


class Poisson(distributions.Poisson):
    """Counts, by their rate.

    >>> Poisson(torch.tensor(1.0).double()).cdf(torch.tensor(1.0))
    tensor(0.7358, dtype=torch.float64)
    """

    @torch.no_grad()
    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most a value: the regularised upper incomplete gamma function."""
        value = torch.as_tensor(value, dtype=self.rate.dtype, device=self.rate.device)
        found = torch.special.gammaincc(*torch.broadcast_tensors(value.floor().clamp(min=0) + 1, self.rate))
        return torch.where(value < 0, 0.0, found)


class StudentT(distributions.StudentT):
    """Student's t distribution, moved and scaled.

    >>> StudentT(torch.tensor(1.0).double()).cdf(torch.tensor(1.0))
    tensor(0.7500, dtype=torch.float64)
    """

    @torch.no_grad()
    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most a value, computed on the CPU in float64."""
        from scipy.special import stdtr

        standardised = (value - self.loc) / self.scale
        df, numbers = (each.double().cpu() for each in torch.broadcast_tensors(self.df, standardised))
        return torch.as_tensor(stdtr(df.numpy(), numbers.numpy())).to(standardised)


def as_pyro(distribution: Distribution) -> "TorchDistribution":
    """The same distribution as one of Pyro's, which can be the site of a program."""
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    if isinstance(distribution, TorchDistributionMixin):
        return distribution
    kind: Any = type(distribution)
    found: Any = copy(distribution)
    found.__class__ = _with_pyro(kind)
    return found


@cache
def _with_pyro(kind: type) -> type:
    """A distribution's class with Pyro's mixin, as Pyro makes its own of torch's."""
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    return type(kind.__name__, (kind, TorchDistributionMixin), {})


@contextmanager
def unvalidated() -> Iterator[None]:
    """Have distributions look at none of their values, for which a device is waited for and CUDA graphs cannot be."""
    was_on: bool = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(was_on)
