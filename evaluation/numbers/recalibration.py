"""Recalibration of predicted numbers: a map that is fitted on validation data, and called on other predictions."""

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
    """Every predictive distribution, stretched about its mean location by one factor; it keeps its density.

    Args:
        factor: of standard deviations; above 1 where the forecast was overconfident.
    """

    factor: float

    def __call__(self, predictive: Predictive) -> Predictive:
        """The stretched mixture, its components' locations apart by the factor too.

        Raises:
            InputError: components that have no location and scale, such as counts.
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


_LARGEST = 1e100  # of an NLL: the search multiplies differences of such


def fit_variance_scaling(predictive: Predictive, targets: Num[Tensor, "example *output"]) -> VarianceScaling:
    """The factor of the least NLL, between 1/1000 and 1000 (for one normal Levi et al. 2022, arXiv 1905.11659).

    Args:
        predictive: of validation examples.
        targets: theirs.

    Raises:
        InputError: targets that are not finite or of another shape, or fewer than 20; components that have no location
            and scale.
    """
    from scipy.optimize import minimize_scalar

    _check(predictive, targets)

    def loss(log_factor: float) -> float:
        nll = -VarianceScaling(math.exp(log_factor))(predictive).log_prob(targets).mean().item()
        return min(nll, _LARGEST)

    end = math.log(1000)
    found = minimize_scalar(loss, bounds=(-end, end), method="bounded", options={"xatol": 1e-8})
    return VarianceScaling(math.exp(found.x))


@dataclass(frozen=True, eq=False)
class PitMap:
    """A rising map of probabilities, linear between its points: the share of PIT values at or below each.

    Args:
        predicted: ``[point]`` rising from 0 to 1.
        observed: ``[point]`` rising from 0 to 1.
    """

    predicted: Float64[Tensor, "point"]
    observed: Float64[Tensor, "point"]

    def __call__(self, forecast: Forecast) -> "Recalibrated":
        """The forecast, recalibrated."""
        return Recalibrated(forecast, self)

    def forward(self, probs: Tensor) -> Float64[Tensor, "*target"]:
        """Observed frequencies of predicted probabilities."""
        return _interpolated(probs, self.predicted, self.observed)

    def inverse(self, probs: Tensor) -> Float64[Tensor, "*target"]:
        """Predicted probabilities of observed frequencies."""
        return _interpolated(probs, self.observed, self.predicted)


def fit_pit_map(forecast: Forecast, targets: Num[Tensor, "example *output"], seed: int = 0) -> PitMap:
    """Isotonic regression of observed frequencies on the PIT (Kuleshov, Fenner and Ermon 2018, arXiv 1807.00263).

    The regression of their algorithm 1 is on frequencies that rise already, so that it changes none of them. They are
    divided by n + 1 in place of n: the next target is as likely between any two of the n, or beyond them. All outputs
    have one map.

    Args:
        forecast: of validation examples.
        targets: theirs.
        seed: of the PIT of counts.

    Raises:
        InputError: targets that are not finite or of another shape, or fewer than 20.
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
    """A forecast whose cdf goes through a map of probabilities; it has quantiles, and no density, mean or variance.

    Args:
        forecast: as it was.
        map: fitted to validation data.
    """

    forecast: Forecast
    map: PitMap

    @property
    def shape(self) -> torch.Size:
        """``[example, *output]``."""
        return self.forecast.shape

    @property
    def is_discrete(self) -> bool:
        """Whether targets are counts or labels."""
        return self.forecast.is_discrete

    def log_prob(self, targets: Num[Tensor, "example *output"]) -> NoReturn:
        """Refused: the map has steps for slopes.

        Raises:
            InputError: always.
        """
        raise InputError(
            "a forecast recalibrated on the PIT has no density, and therefore no NLL: use variance scaling instead"
        )

    def cdf(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of at most these values."""
        return self.map.forward(self.forecast.cdf(values))

    def cdf_below(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of less than these values."""
        return self.map.forward(self.forecast.cdf_below(values))

    def quantile(self, levels: Sequence[float]) -> Float[Tensor, "level example *output"]:
        """The smallest values at which the cdf reaches some levels.

        Raises:
            InputError: a level that is not between 0 and 1.
        """
        wrong = next((level for level in levels if not 0 < level < 1), None)
        if wrong is not None:
            raise InputError(f"the level of a quantile must be between 0 and 1, and is {wrong}")
        inner = self.map.inverse(torch.tensor(levels, dtype=torch.float64))
        # Where more validation targets than that are beyond all that float64 tells apart, the map says 0 or 1.
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
