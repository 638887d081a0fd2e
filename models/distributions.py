"""Subclasses of torch distributions that add missing cdfs (without gradients) and stay accurate at extreme scales."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributions
from torch.distributions import Distribution

from bayes_share.models.poisson import poisson_cdf, poisson_log_prob

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution


class Bernoulli(distributions.Bernoulli):
    """`torch.distributions.Bernoulli` with a cdf.

    >>> Bernoulli(torch.tensor(0.25).double()).cdf(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.0000, 0.7500, 1.0000], dtype=torch.float64)
    """

    @torch.no_grad()
    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of at most `value`."""
        zero_prob = (-self.logits).sigmoid()
        return torch.where(value < 0, 0.0, torch.where(value < 1, zero_prob, 1.0))


class Poisson(distributions.Poisson):
    """`torch.distributions.Poisson` with a cdf, and a log-probability that is accurate for large counts.

    >>> Poisson(torch.tensor(1.0).double()).cdf(torch.tensor(1.0))
    tensor(0.7358, dtype=torch.float64)
    """

    @torch.no_grad()
    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of at most `value`."""
        return poisson_cdf(torch.as_tensor(value, dtype=self.rate.dtype, device=self.rate.device), self.rate)

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log-probability of exactly `value`."""
        if self._validate_args:
            self._validate_sample(value)
        return poisson_log_prob(value.double(), self.rate.double()).to(self.rate.dtype)


class Normal(distributions.Normal):
    """`torch.distributions.Normal` with a density that is accurate at any scale, and a cdf accurate in the lower tail.

    Torch computes the density from the variance, which can underflow to 0 or overflow although the scale does not. Its
    cdf is 0 from 8.4 standard deviations below the mean.

    >>> Normal(0.0, torch.tensor(1e-200, dtype=torch.float64)).log_prob(torch.tensor(0.0))
    tensor(459.5981, dtype=torch.float64)
    >>> print(f"{Normal(0.0, torch.tensor(1.0).double()).cdf(torch.tensor(-10.0)).item():.6e}")
    7.619853e-24
    """

    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of at most `value`."""
        if self._validate_args:
            self._validate_sample(value)
        return torch.erfc((self.loc - value) / self.scale / math.sqrt(2)) / 2

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log density."""
        if self._validate_args:
            self._validate_sample(value)
        errors = (value - self.loc) / self.scale
        return -0.5 * (errors.square() + math.log(2 * math.pi)) - self.scale.log()


class StudentT(distributions.StudentT):
    """`torch.distributions.StudentT` with a cdf, and a standard deviation that is accurate at any scale.

    >>> StudentT(torch.tensor(1.0).double()).cdf(torch.tensor(1.0))
    tensor(0.7500, dtype=torch.float64)
    """

    @torch.no_grad()
    def cdf(self, value: Tensor) -> Tensor:
        """Compute the probability of at most `value`, on the CPU in float64."""
        from scipy.special import stdtr

        standardised = (value - self.loc) / self.scale
        df, quantiles = (tensor.double().cpu() for tensor in torch.broadcast_tensors(self.df, standardised))
        return torch.as_tensor(stdtr(df.numpy(), quantiles.numpy())).to(standardised)

    @property
    def stddev(self) -> Tensor:
        """The standard deviation, computed from the scale; infinite or NaN where the variance is."""
        unit_scale = distributions.StudentT(self.df, torch.zeros_like(self.loc), torch.ones_like(self.scale))
        return self.scale * unit_scale.variance.sqrt()


def as_pyro(distribution: Distribution) -> "TorchDistribution":
    """Convert a torch distribution to a Pyro distribution, for use in a Pyro program."""
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    if isinstance(distribution, TorchDistributionMixin):
        return distribution
    kind: Any = type(distribution)
    found: Any = copy(distribution)
    found.__class__ = _with_pyro(kind)
    return found


@cache
def _with_pyro(kind: type) -> type:
    """A distribution's class with Pyro's mixin, as Pyro defines its own distributions."""
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    return type(kind.__name__, (kind, TorchDistributionMixin), {})


@contextmanager
def unvalidated() -> Iterator[None]:
    """Disable the validation of distributions, which synchronises the device and prevents CUDA graph capture."""
    was_on: bool = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(was_on)
