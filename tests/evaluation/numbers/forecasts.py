"""Forecasts for simulated targets."""

import torch
from torch import Tensor
from torch.distributions import Normal, Poisson

from bayes_share.models.predictive import Predictive


class Counts(Poisson):
    """Poisson with a cdf."""

    def cdf(self, value: Tensor) -> Tensor:
        return torch.special.gammaincc(value + 1, self.rate)


def normals(examples: int = 6, *output: int, seed: int = 0) -> Predictive:
    """A mixture of six normals for each target."""
    source = torch.Generator().manual_seed(seed)
    shape = (2, 3, examples, *output)
    loc = torch.randn(shape, generator=source, dtype=torch.float64)
    return Predictive(Normal(loc, 0.3 + torch.rand(shape, generator=source, dtype=torch.float64)))


def calibrated(examples: int = 2000, factor: float = 1.0) -> tuple[Predictive, Tensor]:
    """Targets drawn from a mixture of normals, and the mixture with its scales multiplied by a factor."""
    truth = normals(examples)
    targets = truth.sample(1, torch.Generator().manual_seed(1))[0]
    centre = truth.components.loc.mean((0, 1))  # type: ignore[attr-defined]
    loc = centre + factor * (truth.components.loc - centre)  # type: ignore[attr-defined]
    return Predictive(Normal(loc, factor * truth.components.scale)), targets  # type: ignore[attr-defined]


def counts(examples: int = 2000) -> tuple[Predictive, Tensor]:
    """Counts drawn from a mixture of two rates, and that mixture."""
    rates = 8 * torch.rand(2, 1, examples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forecast = Predictive(Counts(rates))
    return forecast, forecast.sample(1, torch.Generator().manual_seed(1))[0]
