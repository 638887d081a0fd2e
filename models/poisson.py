"""Poisson probabilities at any rate: torch's own are slow and inaccurate for counts far from a large rate."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_UNIFORM = 1e5  # from this count on, the uniform asymptotic expansion is accurate to rounding error
_STIRLING = 100.0  # from this count on, Stirling's series is accurate to rounding error
_NEAR = 0.3  # relative distance of rate and count up to which their difference would lose precision
# Temme 1979, "The asymptotic expansion of the incomplete gamma functions": coefficients of C₀ and C₁ in powers of η.
_C0 = (-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -139 / 777600, 1 / 25515)
_C1 = (-1 / 540, -1 / 288, 1 / 378, -77 / 77760, 1 / 4860)


def poisson_cdf(counts: Float[Tensor, "..."], rates: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Compute the probability of at most `counts`: the upper incomplete gamma function ``Q(k + 1, rate)``.

    Args:
        counts: the counts k, rounded down; the probability is 0 below 0.
        rates: the positive rates.

    >>> rate, one_sd_above = torch.tensor([1e12, 1e12 + 1e6], dtype=torch.float64)
    >>> poisson_cdf(one_sd_above, rate)
    tensor(0.8413, dtype=torch.float64)
    """
    shape, rates = torch.broadcast_tensors(counts.floor() + 1, rates)
    distance = (rates - shape) / shape
    is_uniform = (shape >= _UNIFORM) & (distance.abs() < _NEAR)
    cdf = torch.empty_like(distance)
    cdf[~is_uniform] = torch.special.gammaincc(shape[~is_uniform].clamp(min=1), rates[~is_uniform])
    cdf[is_uniform] = _uniform(shape[is_uniform], distance[is_uniform])
    return torch.where(shape < 1, 0.0, cdf)


def _uniform(shape: Tensor, distance: Tensor) -> Tensor:
    """Compute ``Q(shape, shape (1 + distance))`` for large shapes."""
    half_square = _excess(distance)
    eta = distance.sign() * (2 * half_square).sqrt()
    rest = (_polynomial(_C0, eta) + _polynomial(_C1, eta) / shape) * (-shape * half_square).exp()
    return torch.erfc(eta * (shape / 2).sqrt()) / 2 + rest / (2 * math.pi * shape).sqrt()


def poisson_prob(counts: Float[Tensor, "..."], rates: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Compute the probability of exactly `counts`.

    Args:
        counts: the counts, rounded down; the probability is 0 below 0.
        rates: the positive rates.
    """
    return poisson_log_prob(counts, rates).exp()


def poisson_log_prob(counts: Float[Tensor, "..."], rates: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Compute the log-probability of exactly `counts`.

    Loader 2000, "Fast and accurate computation of binomial probabilities".

    Args:
        counts: the counts, rounded down; the log-probability is ``-inf`` below 0.
        rates: the positive rates.

    >>> rate = torch.tensor(1e12, dtype=torch.float64)
    >>> poisson_log_prob(rate, rate)  # -log(2 π rate) / 2
    tensor(-14.7344, dtype=torch.float64)
    """
    counts, rates = torch.broadcast_tensors(counts.floor(), rates)
    size = counts.clamp(min=_STIRLING)
    distance = (rates - size) / size
    stirling_error = 1 / (12 * size) - 1 / (360 * size**3)
    near = -size * _excess(distance.clamp(-_NEAR, _NEAR)) - stirling_error - (2 * math.pi * size).log() / 2
    clamped = counts.clamp(min=0)
    far = torch.special.xlogy(clamped, rates) - rates - (clamped + 1).lgamma()
    is_near = (counts >= _STIRLING) & (distance.abs() < _NEAR)
    return torch.where(counts < 0, -math.inf, torch.where(is_near, near, far))


def _excess(x: Tensor) -> Tensor:
    """Compute ``x − log(1 + x)`` for x near 0 without cancellation."""
    ratio = x / (2 + x)  # log(1 + x) = 2 artanh(ratio)
    square = ratio.square()
    series = _polynomial([1 / (2 * power + 3) for power in range(10)], square)
    return ratio * (x - 2 * square * series)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """Evaluate ``Σ coefficients[i] xⁱ`` by Horner's method."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value
