"""Recalibration of forecasts of numbers by a map fitted on validation data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor
from torch.distributions import constraints

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers.forecast import Forecast, check_targets
from bayes_share.evaluation.numbers.pit import pit
from bayes_share.models.predictive import Predictive

_LEAST_TARGETS = 20


@dataclass(frozen=True)
class VarianceScaling:
    """Scaling of every predictive distribution about its mean location by a common factor.

    The scaled distribution still has a density.

    Args:
        factor: the factor of the standard deviations; above 1 for an overconfident forecast.
    """

    factor: float

    def __call__(self, predictive: Predictive) -> Predictive:
        """Scale the components of a mixture, and the distances between their locations.

        Raises:
            InputError: if the components have no location and scale, such as count distributions.
        """
        components: Any = predictive.components
        names = type(components).arg_constraints
        if not {"loc", "scale"} <= set(names) or components.support is not constraints.real:
            raise InputError(
                "variance scaling requires a distribution with a location and a scale, such as Normal or "
                f"StudentT, not {type(components).__name__}"
            )
        arguments = {name: getattr(components, name) for name in names}
        centre = components.loc.mean((0, 1))
        arguments["loc"] = centre + self.factor * (components.loc - centre)
        arguments["scale"] = self.factor * components.scale
        return Predictive(type(components)(**arguments))


_LARGEST = 1e100  # upper bound of the NLL, since the search multiplies differences of it
_END, _STEPS = math.log(1000), 70  # the search interval of log factors, and the grid steps on each side of 0


def fit_variance_scaling(predictive: Predictive, targets: Num[Tensor, "example *output"]) -> VarianceScaling:
    """Fit the factor between 1/1000 and 1000 that minimises the NLL.

    Levi et al. 2022, arXiv 1905.11659, do so for a single normal distribution. The NLL of a mixture whose components
    are far apart has several local minima, so the best factor of a grid, which contains 1, is refined.

    Args:
        predictive: predictive distributions of validation examples.
        targets: their targets.

    Raises:
        InputError: if targets are not finite or have another shape, there are fewer than 20 examples, or the components
            have no location and scale.
    """
    from scipy.optimize import minimize_scalar

    _check(predictive, targets)

    def loss(log_factor: float) -> float:
        nll = -VarianceScaling(math.exp(log_factor))(predictive).log_prob(targets).mean().item()
        return min(nll, _LARGEST)

    grid = [_END * step / _STEPS for step in range(-_STEPS, _STEPS + 1)]
    least, best = min((loss(log_factor), log_factor) for log_factor in grid)
    near = (max(-_END, best - _END / _STEPS), min(_END, best + _END / _STEPS))
    found = minimize_scalar(loss, bounds=near, method="bounded", options={"xatol": 1e-8})
    return VarianceScaling(math.exp(found.x if found.fun < least else best))


@dataclass(frozen=True, eq=False)
class PitMap:
    """An increasing, piecewise linear map from predicted probabilities to observed frequencies.

    Args:
        predicted: ``[point]``, PIT values, increasing from 0 to 1.
        observed: ``[point]``, the share of PIT values at or below each, increasing from 0 to 1.
    """

    predicted: Float64[Tensor, "point"]
    observed: Float64[Tensor, "point"]

    def __call__(self, forecast: Forecast) -> "Recalibrated":
        """Recalibrate a forecast."""
        return Recalibrated(forecast, self)

    def forward(self, probs: Tensor) -> Float64[Tensor, "*target"]:
        """Map predicted probabilities to observed frequencies."""
        return _interpolated(probs, self.predicted, self.observed)

    def inverse(self, probs: Tensor) -> Float64[Tensor, "*target"]:
        """Map observed frequencies to predicted probabilities."""
        return _interpolated(probs, self.observed, self.predicted)


def fit_pit_map(forecast: Forecast, targets: Num[Tensor, "example *output"], seed: int = 0) -> PitMap:
    """Fit an isotonic map from the PIT to observed frequencies (Kuleshov, Fenner and Ermon 2018, arXiv 1807.00263).

    The isotonic regression in their algorithm 1 has no effect, since the empirical frequencies are increasing already.
    The frequencies are divided by n + 1 instead of n, because a new target is equally likely to fall into each of the
    n + 1 gaps between the n values. All outputs share one map.

    Args:
        forecast: forecasts of validation examples.
        targets: their targets.
        seed: the seed of the PIT of counts.

    Raises:
        InputError: if targets are not finite or have another shape, or there are fewer than 20 examples.
    """
    _check(forecast, targets)
    values = pit(forecast, targets, seed).flatten().cpu()
    distinct, counts = values.unique(sorted=True, return_counts=True)
    observed = counts.cumsum(0).double() / (len(values) + 1)
    inside = (distinct > 0) & (distinct < 1)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    return PitMap(*(torch.cat([ends[0], each[inside], ends[1]]) for each in (distinct, observed)))


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """A forecast with a recalibrated cdf. It has quantiles, but no density, mean or variance.

    Args:
        forecast: the original forecast.
        map: the map of its cdf, fitted to validation data.
    """

    forecast: Forecast
    map: PitMap

    @property
    def shape(self) -> torch.Size:
        """The shape of the targets, ``[example, *output]``."""
        return self.forecast.shape

    @property
    def is_discrete(self) -> bool:
        """Whether targets are counts or labels."""
        return self.forecast.is_discrete

    def log_prob(self, targets: Num[Tensor, "example *output"]) -> NoReturn:
        """Not available, since the slope of the map is piecewise constant.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a forecast recalibrated on the PIT has no density, and therefore no NLL: use variance scaling instead"
        )

    def cdf(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of values less than or equal to `values`."""
        return self.map.forward(self.forecast.cdf(values))

    def cdf_below(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of values less than `values`."""
        return self.map.forward(self.forecast.cdf_below(values))

    def quantile(self, levels: Sequence[float]) -> Float[Tensor, "level example *output"]:
        """The smallest values at which the cdf reaches each level.

        Raises:
            InputError: if a level is not between 0 and 1.
        """
        wrong = next((level for level in levels if not 0 < level < 1), None)
        if wrong is not None:
            raise InputError(f"the level of a quantile must be between 0 and 1, and is {wrong}")
        inner = self.map.inverse(torch.tensor(levels, dtype=torch.float64))
        # The inverse map can return 0 or 1 if many validation targets have a PIT of 0 or 1 in float64.
        kind = torch.finfo(torch.float64)
        return self.forecast.quantile(inner.clamp(kind.tiny, 1 - kind.eps).tolist())


def _interpolated(values: Tensor, xs: Tensor, ys: Tensor) -> Tensor:
    import numpy as np

    found = np.interp(values.double().cpu().numpy(), xs.numpy(), ys.numpy())
    return torch.as_tensor(found, dtype=torch.float64, device=values.device)


def _check(forecast: Forecast, targets: Tensor) -> None:
    check_targets(forecast, targets)
    if len(targets) < _LEAST_TARGETS:
        raise InputError(f"recalibration requires at least {_LEAST_TARGETS} validation examples, not {len(targets)}")
