"""The Poisson distribution at any rate: torch's own is slow and inexact where counts are far from a large rate."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_UNIFORM = 1e5  # from this many counts on the expansion in their number is exact to rounding
_STIRLING = 100.0  # likewise that of the factorial
_NEAR = 0.3  # of the counts: further away, what they are apart is not lost in rounding
# Temme 1979, "The asymptotic expansion of the incomplete gamma functions": the powers of η in C₀ and C₁ from 0 on.
_C0 = (-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -139 / 777600, 1 / 25515)
_C1 = (-1 / 540, -1 / 288, 1 / 378, -77 / 77760, 1 / 4860)


def poisson_cdf(counts: Float[Tensor, "..."], rates: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The probability of at most so many, 0 below 0: the upper incomplete gamma function ``Q(k + 1, rate)``.

    Args:
        counts: rounded down.
        rates: positive.

    >>> rate, one_sd_above = torch.tensor([1e12, 1e12 + 1e6], dtype=torch.float64)
    >>> poisson_cdf(one_sd_above, rate)
    tensor(0.8413, dtype=torch.float64)
    """
    shape, rates = torch.broadcast_tensors(counts.floor() + 1, rates)
    apart = (rates - shape) / shape
    is_uniform = (shape >= _UNIFORM) & (apart.abs() < _NEAR)
    found = torch.empty_like(apart)
    found[~is_uniform] = torch.special.gammaincc(shape[~is_uniform].clamp(min=1), rates[~is_uniform])
    found[is_uniform] = _uniform(shape[is_uniform], apart[is_uniform])
    return torch.where(shape < 1, 0.0, found)


def _uniform(shape: Tensor, apart: Tensor) -> Tensor:
    """``Q(shape, shape (1 + apart))`` of large shapes."""
    half_square = _excess(apart)
    eta = apart.sign() * (2 * half_square).sqrt()
    rest = (_polynomial(_C0, eta) + _polynomial(_C1, eta) / shape) * (-shape * half_square).exp()
    return torch.erfc(eta * (shape / 2).sqrt()) / 2 + rest / (2 * math.pi * shape).sqrt()


def poisson_prob(counts: Float[Tensor, "..."], rates: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The probability of exactly so many, 0 below 0.

    Loader 2000, "Fast and accurate computation of binomial probabilities".

    Args:
        counts: rounded down.
        rates: positive.
    """
    counts, rates = torch.broadcast_tensors(counts.floor(), rates)
    size = counts.clamp(min=_STIRLING)
    apart = (rates - size) / size
    of_factorial = 1 / (12 * size) - 1 / (360 * size**3)
    near = (-size * _excess(apart.clamp(-_NEAR, _NEAR)) - of_factorial).exp() / (2 * math.pi * size).sqrt()
    whole = counts.clamp(min=0)
    far = (torch.special.xlogy(whole, rates) - rates - (whole + 1).lgamma()).exp()
    is_near = (counts >= _STIRLING) & (apart.abs() < _NEAR)
    return torch.where(counts < 0, 0.0, torch.where(is_near, near, far))


def _excess(x: Tensor) -> Tensor:
    """``x − log(1 + x)`` without the difference, for x near 0."""
    ratio = x / (2 + x)  # log(1 + x) = 2 artanh(ratio)
    square = ratio.square()
    odd = _polynomial([1 / (2 * power + 3) for power in range(10)], square)
    return ratio * (x - 2 * square * odd)


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    """``Σ coefficients[i] xⁱ``."""
    found = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        found = found * x + coefficient
    return found
