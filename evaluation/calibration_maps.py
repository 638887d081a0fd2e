"""Calibration maps on log-probabilities, fitted on validation data.

Temperature, vector and beta calibration are implemented here instead of using netcal 1.4, for three reasons:

* Its scaling methods clear Pyro's global parameter store at every fit, including plain maximum likelihood.
* It clips probabilities at 2e-16. For a classifier whose correct temperature is 30 it finds 11, with an NLL of 1.48
  instead of 0.95.
* It computes gradients by finite differences: vector scaling of 100 classes on 5,000 images takes 9 s.

The results agree if nothing is clipped, as the tests check. Histogram binning and isotonic regression use netcal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

LogProbs = Float64[Tensor, "row class"]
Labels = Int64[Tensor, "row"]
Map = Callable[[LogProbs], LogProbs]
"""A map from log-probabilities to calibrated log-probabilities; each row is a distribution."""

_RIDGE = 1e-6  # penalty toward the identity; without it the optimum is infinite if all predictions are right
_LEAST_SLOPE = 1e-3  # a temperature of at most 1000; a positive slope preserves the order of the classes
_TINY = torch.finfo(torch.float32).tiny
_ROUNDING = 1e-12  # a spread of log-probabilities that can be rounding error


@dataclass(frozen=True)
class Temperature:
    """Temperature scaling, ``softmax(log p / T)`` (Guo et al. 2017, arXiv 1706.04599, eq. 9).

    It preserves the order of the classes.

    Args:
        temperature: T; above 1 for an overconfident classifier.
    """

    temperature: float

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Return calibrated log-probabilities."""
        return (log_probs / self.temperature).log_softmax(-1)


def fit_temperature(log_probs: LogProbs, labels: Labels) -> Temperature:
    """Fit the temperature that minimises the NLL, with an upper bound of 1000."""
    centred = log_probs - log_probs.mean(-1, keepdim=True)
    _, unit, column = _standardised(centred.reshape(-1, 1))
    scaled = column.view_as(log_probs)

    def loss(slope: Tensor) -> Tensor:
        return F.cross_entropy(slope * scaled, labels)

    slope = _minimise(loss, unit, lower=[_LEAST_SLOPE * unit.item()])
    return Temperature((unit / slope).item())


@dataclass(frozen=True, eq=False)
class Vector:
    """Vector scaling, ``softmax(w ∘ log p + b)`` (Guo et al. 2017, section 4.2).

    It acts on log-probabilities, since a mixture has no other logits.

    Args:
        weights: w, ``[class]``.
        biases: b, ``[class]``.
    """

    weights: Float64[Tensor, "class"]
    biases: Float64[Tensor, "class"]

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Return calibrated log-probabilities."""
        return (self.weights * log_probs + self.biases).log_softmax(-1)


def fit_vector(log_probs: LogProbs, labels: Labels) -> Vector:
    """Fit the weights and biases that minimise the NLL."""
    centre, unit, scaled = _standardised(log_probs)

    def loss(numbers: Tensor) -> Tensor:
        weights, biases = numbers.chunk(2)
        return F.cross_entropy(weights * scaled + biases, labels)

    slopes, biases = _minimise(loss, torch.cat([unit, centre])).chunk(2)
    weights = slopes / unit
    return Vector(weights, biases - weights * centre)


@dataclass(frozen=True, eq=False)
class Beta:
    """Beta calibration, ``logit q = a log p − b log(1 − p) + c`` for each class against the rest, then normalised.

    Kull, Silva Filho and Flach 2017, "Beta calibration", section 4. a and b are non-negative, so q increases with p.

    Args:
        coefficients: a, b and c, ``[class, 3]``.
    """

    coefficients: Float64[Tensor, "class 3"]

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Return calibrated log-probabilities."""
        a, b, c = self.coefficients.T
        log_p, minus_log_rest = _beta_features(log_probs).unbind(1)
        logits = a * log_p + b * minus_log_rest + c
        return F.logsigmoid(logits).log_softmax(-1)


def fit_beta(log_probs: LogProbs, labels: Labels) -> Beta:
    """Fit the coefficients that minimise the binary NLL of each class against the rest."""
    coefficients = []
    for of_class, features in enumerate(_beta_features(log_probs).unbind(-1)):
        target = (labels == of_class).double()
        centre, unit, scaled = _standardised(features)

        def loss(numbers: Tensor, scaled: Tensor = scaled, target: Tensor = target) -> Tensor:
            return F.binary_cross_entropy_with_logits(scaled @ numbers[:2] + numbers[2], target)

        *slopes, bias = _minimise(loss, torch.cat([unit, centre.sum()[None]]), lower=[0.0, 0.0, None])
        a_and_b = torch.stack(slopes) / unit
        coefficients.append(torch.cat([a_and_b, (bias - a_and_b @ centre)[None]]))
    return Beta(torch.stack(coefficients))


def _beta_features(log_probs: LogProbs) -> Float64[Tensor, "row 2 class"]:
    """``log p`` and ``−log(1 − p)``."""
    # Close to p = 1, compute 1 − p as the sum of the other classes. Only the largest p of a row can be above 0.5.
    top = log_probs.argmax(-1, keepdim=True)
    others = log_probs.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
    log_rest = torch.log1p(-log_probs.exp().clamp(max=0.5)).scatter(-1, top, others)
    return torch.stack([log_probs, -log_rest], dim=1)


@dataclass(frozen=True, eq=False)
class OneVsRest:
    """Calibrate the probability of each class against the rest, then normalise.

    A probability of 0 becomes the smallest normal float32, 1e-38, so that its log is finite. A row in which every class
    gets 0 is left unchanged.

    Args:
        estimators: a fitted netcal estimator for each class.
    """

    estimators: Sequence[Any]

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Return calibrated log-probabilities."""
        probs = log_probs.exp().clamp(max=1).unbind(-1)
        calibrated = [
            torch.from_numpy(estimator.transform(p.numpy()))
            for estimator, p in zip(self.estimators, probs, strict=True)
        ]
        found = torch.stack(calibrated, dim=-1)
        log_found = found.clamp(min=_TINY).log().log_softmax(-1)
        return torch.where(found.sum(-1, keepdim=True) > 0, log_found, log_probs)


def fit_histogram(log_probs: LogProbs, labels: Labels) -> OneVsRest:
    """Fit netcal's histogram binning (Zadrozny and Elkan 2001) with 10 bins for each class.

    A probability is replaced by the share of the class in its bin, or by the centre of the bin if it is empty. netcal
    fits with bins ``[lo, hi)`` and applies them as ``(lo, hi]``, which affects probabilities exactly on an edge.
    """
    from netcal.binning import HistogramBinning

    return _one_vs_rest(lambda: HistogramBinning(bins=10), log_probs, labels)


def fit_isotonic(log_probs: LogProbs, labels: Labels) -> OneVsRest:
    """Fit netcal's isotonic regression (Zadrozny and Elkan 2002), a non-decreasing map, for each class."""
    from netcal.binning import IsotonicRegression

    return _one_vs_rest(IsotonicRegression, log_probs, labels)


def _one_vs_rest(make: Callable[[], Any], log_probs: LogProbs, labels: Labels) -> OneVsRest:
    columns = enumerate(log_probs.exp().clamp(max=1).unbind(-1))
    return OneVsRest([make().fit(p.numpy(), (labels == k).long().numpy()) for k, p in columns])


@dataclass(frozen=True, eq=False)
class AmongSeen:
    """A map of the classes that occur in the validation data. The other classes keep their probability.

    Without examples of a class, the maps above would assign it a probability of 0.

    Args:
        inner: the map of the distribution over the classes that occur.
        seen: whether each class occurs, ``[class]``.
    """

    inner: Map
    seen: Bool[Tensor, "class"]

    def __call__(self, log_probs: LogProbs) -> LogProbs:
        """Return calibrated log-probabilities."""
        among, log_mass = _among(log_probs, self.seen)
        result = log_probs.clone()
        result[:, self.seen] = self.inner(among) + log_mass
        return result


def fit_among_seen(fit: Callable[[LogProbs, Labels], Map], log_probs: LogProbs, labels: Labels) -> AmongSeen:
    """Fit a map to the distribution over the classes that occur among the labels."""
    seen = labels.bincount(minlength=log_probs.shape[1]) > 0
    among, _ = _among(log_probs, seen)
    return AmongSeen(fit(among, (seen.cumsum(0) - 1)[labels]), seen)


def _among(log_probs: LogProbs, seen: Bool[Tensor, "class"]) -> tuple[Float64[Tensor, "row seen"], Tensor]:
    """Return the distribution over the classes that occur, and the log of their total probability, ``[row, 1]``."""
    among = log_probs[:, seen]
    log_mass = among.logsumexp(-1, keepdim=True)
    return among - log_mass, log_mass


def _standardised(
    features: Float64[Tensor, "row column"],
) -> tuple[Float64[Tensor, "column"], Float64[Tensor, "column"], Float64[Tensor, "row column"]]:
    """Standardise the columns that vary little, as for almost uniform predictions, and leave the others unchanged.

    Otherwise their coefficients would be so large that the penalty would dominate the loss.

    Returns:
        The centre and the unit of each column, and the features less the centre in this unit.
    """
    centre = features.median(0).values
    spread = (features - centre).square().mean(0).sqrt()
    is_small = (spread > _ROUNDING) & (spread < 1)
    centre, unit = torch.where(is_small, centre, 0.0), torch.where(is_small, spread, 1.0)
    return centre, unit, (features - centre) / unit


def _minimise(
    loss: Callable[[Tensor], Tensor], identity: Float64[Tensor, "number"], lower: Sequence[float | None] | None = None
) -> Float64[Tensor, "number"]:
    """Minimise a convex loss by L-BFGS-B, starting at the identity map, subject to lower bounds."""
    from scipy.optimize import minimize

    def evaluate(numbers: Any) -> tuple[float, Any]:
        point = torch.tensor(numbers, requires_grad=True)
        value = loss(point) + _RIDGE / 2 * (point - identity).square().sum()
        (gradient,) = torch.autograd.grad(value, point)
        return value.item(), gradient.numpy()

    bounds = None if lower is None else [(bound, None) for bound in lower]
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(evaluate, identity.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return torch.from_numpy(found.x)
