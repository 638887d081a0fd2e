"""Distributions of torch with the cdfs that torch lacks, which have no gradient, and with densities of any scale."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

from bayes_share.models.poisson import poisson_cdf

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
        """The probability of at most a value."""
        return poisson_cdf(torch.as_tensor(value, dtype=self.rate.dtype, device=self.rate.device), self.rate)


class Normal(distributions.Normal):
    """Normal, of any scale: torch has the density from the variance, which may be 0 or infinite where the scale is not.

    >>> Normal(0.0, torch.tensor(1e-200, dtype=torch.float64)).log_prob(torch.tensor(0.0))
    tensor(459.5981, dtype=torch.float64)
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density."""
        if self._validate_args:
            self._validate_sample(value)
        errors = (value - self.loc) / self.scale
        return -0.5 * (errors.square() + math.log(2 * math.pi)) - self.scale.log()


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

    @property
    def stddev(self) -> Tensor:
        """From the scale; infinite or NaN where the variance is."""
        of_scale_one = distributions.StudentT(self.df, torch.zeros_like(self.loc), torch.ones_like(self.scale))
        return self.scale * of_scale_one.variance.sqrt()


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
