"""The CRPS of mixtures of Poisson distributions, at a cost independent of their rates."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.models.poisson import poisson_cdf, poisson_prob

FEW = 64.0
"""The largest rate for which the CRPS is a sum over integers."""

_SUMMED = 200  # for rates up to `FEW`, larger counts have a probability below 1e-40
_PAIRS = 2**19  # maximum number of component-target pairs in memory
# E|X − X'| = √s (E|z + N(0, 1)| + φ(z) Σ_k P_k(z²) / sᵏ), s the sum of the rates and z their difference over √s: the
# expansion in 1/s of (1/π) ∫₀^π (1 − Re ψ(t)) / (1 − cos t) dt, ψ the characteristic function of X − X'. These are
# the coefficients of the polynomials P_k, lowest power of z² first. At s = `FEW` the error is 1e-10.
_CORRECTIONS = (
    (-1 / 4, -1 / 4),
    (-3 / 64, -3 / 64, -3 / 64, 1 / 64),
    (-15 / 512, -15 / 512, -5 / 256, -5 / 256, 5 / 512, -1 / 1536),
    (-525 / 16384, -525 / 16384, -315 / 16384, -175 / 16384, -175 / 16384, 105 / 16384, -35 / 49152, 1 / 49152),
)


def crps_of_poissons(
    rates: Float[Tensor, "component target"], targets: Float[Tensor, "target"]
) -> Float[Tensor, "target"]:
    """Compute ``E|X − y| − E|X − X'| / 2`` for independent draws X and X' (Gneiting and Raftery 2007, eq. 21).

    Args:
        rates: positive rates of equally weighted components.
        targets: the observed targets.
    """
    parts = max(1, _PAIRS // len(rates))
    each = zip(rates.split(parts, dim=1), targets.split(parts), strict=True)
    return torch.cat([_distance(some, values).mean(0) - _spread(some) / 2 for some, values in each])


def _distance(rates: Tensor, targets: Tensor) -> Tensor:
    """Compute ``E|X − y|`` for each component: ``(y − λ) (2 F(⌊y⌋ − 1) − 1) + 2 y p(⌊y⌋)``."""
    counts = targets.floor()
    return (targets - rates) * (2 * poisson_cdf(counts - 1, rates) - 1) + 2 * targets * poisson_prob(counts, rates)


def _spread(rates: Tensor) -> Tensor:
    """Compute ``E|X − X'|`` for the mixture, the mean over all pairs of components."""
    is_few = rates <= FEW
    total = _spread_of_few(rates.where(is_few, 1.0), is_few)
    for index in range(len(rates)):
        pairs = _distance_of_two(rates[index], rates[index:]).masked_fill(is_few[index] & is_few[index:], 0.0)
        total = total + 2 * pairs.sum(0) - pairs[0]
    return total / len(rates) ** 2


def _distance_of_two(rate: Tensor, other: Tensor) -> Tensor:
    """Compute ``E|X − X'|`` for two components, at least one with a rate above `FEW`."""
    total = rate + other
    z = (rate - other) / total.sqrt()
    square = z.square()
    density = (-square / 2).exp() / math.sqrt(2 * math.pi)
    correction = torch.zeros_like(total)
    for coefficients in reversed(_CORRECTIONS):
        value = torch.zeros_like(total)
        for coefficient in reversed(coefficients):
            value = value * square + coefficient
        correction = (correction + value) / total
    return total.sqrt() * (z * torch.erf(z / math.sqrt(2)) + density * (2 + correction))


def _spread_of_few(rates: Tensor, is_few: Tensor) -> Tensor:
    """Sum ``E|X − X'|`` over the pairs of components with rates up to `FEW`: ``2 Σ_k (Σ F)(k) (Σ (1 − F))(k)``."""
    total = torch.zeros_like(rates[0])
    for count in range(_SUMMED if bool(is_few.any()) else 0):
        below = poisson_cdf(torch.full_like(rates, count), rates).where(is_few, 0.0).sum(0)
        total += 2 * below * (is_few.sum(0) - below)
    return total
