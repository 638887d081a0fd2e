"""The continuous ranked probability score: in closed form, as a sum over counts, or by quadrature."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Normal, Poisson

from bayes_share.evaluation.numbers.forecast import Forecast, check_targets
from bayes_share.evaluation.numbers.poisson_crps import FEW, crps_of_poissons
from bayes_share.models.predictive import Predictive

_AT_A_TIME = 2**21  # pairs of components in memory
_TAIL = 1e-12  # of the probability of counts that is left out at each end
_MOST_COUNTS = 400  # that are summed over
_STEPS_SHOW = 2**17  # to so many counts; among more, the steps of a cdf are less than the error of quadrature
_LEVELS = (1e-4, 0.003, 0.02, 0.07, 0.15, 0.25, 0.38, 0.5, 0.62, 0.75, 0.85, 0.93, 0.98, 0.997, 1 - 1e-4)
_NODES = 12


def crps(forecast: Forecast, targets: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
    """The CRPS ``∫ (F(z) − 1[z ≥ y])² dz`` of each target, in its units; of a point forecast the absolute error.

    Matheson and Winkler 1976; Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and estimation",
    eq. 20. Of mixtures of normals it is exact (Grimit et al. 2006, "The continuous ranked probability score for
    circular variables and its application to mesoscale forecast ensemble verification"), of mixtures of Poisson
    distributions to 1e-9, and of other counts, where these are few, as the sum over whole numbers. Of anything else it
    is integrated from the cdf, to a relative error of about 1e-4 where the density is smooth, and a few thousandths
    after `fit_pit_map`, whose density has steps.

    Args:
        forecast: with a ``cdf``.
        targets: what came true.

    Raises:
        InputError: targets that are not finite or of another shape; a distribution without a ``cdf``.

    >>> one = Predictive(Normal(torch.zeros(1, 1, 1).double(), 1.0))
    >>> round(crps(one, torch.zeros(1)).item(), 6)  # 2 φ(0) − 1 / √π
    0.233695
    """
    targets = check_targets(forecast, targets)
    components = forecast.components if isinstance(forecast, Predictive) else None
    if isinstance(components, Normal):
        return _of_normals(components, targets)
    if isinstance(components, Poisson) and bool((components.rate > FEW).any()):
        rates = components.rate.double().flatten(0, 1).flatten(1)
        return crps_of_poissons(rates, targets.flatten()).reshape(targets.shape)
    if forecast.is_discrete:
        return _of_counts(forecast, targets)
    return _by_quadrature(forecast.cdf, forecast.quantile(_LEVELS).double(), targets)


def _of_normals(components: Normal, targets: Tensor) -> Tensor:
    """``Σ A(y − μ_i, σ_i²) / K − Σ Σ A(μ_i − μ_j, σ_i² + σ_j²) / 2 K²``, in which a pair counts twice."""
    loc, scale = (each.double().flatten(0, 1).flatten(1) for each in (components.loc, components.scale))
    count = len(loc)
    values = targets.flatten()
    found = _mean_distance(values - loc.flatten(1), scale.flatten(1)).mean(0)
    spread = []
    for mean, sd in zip(*(each.split(max(1, _AT_A_TIME // count), dim=1) for each in (loc, scale)), strict=True):
        total = torch.zeros_like(mean[0])
        for index in range(count):
            both = torch.hypot(sd[index], sd[index:])
            pairs = _mean_distance(mean[index] - mean[index:], both)
            total += 2 * pairs.sum(0) - pairs[0]
        spread.append(total / (2 * count**2))
    return (found - torch.cat(spread)).reshape(targets.shape)


def _mean_distance(mean: Tensor, sd: Tensor) -> Tensor:
    """The mean of ``|x|``, x normal: ``2 σ φ(μ / σ) + μ (2 Φ(μ / σ) − 1)``."""
    z = mean / sd
    return sd * math.sqrt(2 / math.pi) * (-z.square() / 2).exp() + mean * torch.erf(z / math.sqrt(2))


def _of_counts(forecast: Forecast, targets: Tensor) -> Tensor:
    """``Σ_k (F(k) − 1[k ≥ y])²``; outside the range that has all but 1e-12 of the probability each term is 0 or 1.

    Of many counts it is an integral, of what is linear from one whole number to the next.
    """
    low, high = forecast.quantile([_TAIL, 1 - _TAIL]).double()
    if (most := (high - low).max().item()) > _MOST_COUNTS:

        def cdf(values: Tensor) -> Tensor:
            if most > _STEPS_SHOW:
                return forecast.cdf(values.round()).double()
            below = values.floor()
            return torch.lerp(forecast.cdf(below).double(), forecast.cdf(below + 1).double(), values - below)

        return _by_quadrature(cdf, forecast.quantile(_LEVELS).double(), targets - 0.5)
    total = (low - targets).clamp(min=0) + (targets - high - 1).clamp(min=0)
    for step in range(int(most) + 1):
        count = low + step
        term = (forecast.cdf(count) - (count >= targets).double()).square()
        total = total + torch.where(count <= high, term, 0.0)
    return total


def _by_quadrature(cdf: Callable[[Tensor], Tensor], inner: Tensor, targets: Tensor) -> Tensor:
    """Gauss-Legendre between quantiles and the target, where the integrand jumps, and over both tails.

    Of a tail from its edge e outward the integral over the distance d is one over u in (0, 1), with d = s u / (1 − u).

    Args:
        cdf: of the forecast.
        inner: its quantiles ``[level, example, *output]`` in ascending order.
        targets: what came true.
    """
    import numpy as np

    nodes, weights = (torch.from_numpy(each / 2) for each in np.polynomial.legendre.leggauss(_NODES))
    nodes = nodes + 0.5
    edges = torch.cat([inner, targets[None]]).sort(0).values
    scale = (inner[-1] - inner[0]).clamp(min=torch.finfo(torch.float64).tiny)
    total = torch.zeros_like(targets)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        for low, wide in zip(edges, edges.diff(dim=0), strict=False):
            values = low + node * wide
            total += weight * wide * (cdf(values) - (values >= targets).double()).square()
        distance, stretch = scale * node / (1 - node), scale / (1 - node) ** 2
        total += weight * stretch * cdf(edges[0] - distance).square()
        total += weight * stretch * (1 - cdf(edges[-1] + distance)).square()
    return total
