"""Diagnostics of posterior draws: convergence in function space, and PSIS-LOO. arviz is imported lazily."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.arviz_data import Pointwise, as_arviz, import_arviz, log_likelihood
from bayes_share.evaluation.positions import sums_by_example
from bayes_share.evaluation.predictions import Predictions

_LEAST_DRAWS = 4  # per chain, as arviz requires
_LEAST_DRAWS_OF_LOO = 25  # the tail is the largest fifth of the weights, and arviz fits tails of at least 5


@dataclass(frozen=True, eq=False)
class Convergence:
    """Convergence diagnostics of chains in function space.

    Args:
        rhat: ``[image]``, r-hat of the log-probability of the label. NaN for an image if all draws are equal, infinite
            if draws are equal within each chain but differ between chains. None if there are too few draws.
        ess_bulk: ``[image]``, bulk effective sample size over all chains. NaN for an image if all draws are equal; None
            if there are too few draws.
        reason: why a diagnostic is None; None if both are available.
    """

    rhat: Float64[Tensor, "image"] | None
    ess_bulk: Float64[Tensor, "image"] | None
    reason: str | None

    @property
    def max_rhat(self) -> float | None:
        """The largest r-hat, ignoring NaN; None if there is none."""
        known = _known(self.rhat)
        return None if known is None else known.max().item()

    @property
    def median_rhat(self) -> float | None:
        """The median r-hat, ignoring NaN; None if there is none."""
        known = _known(self.rhat)
        return None if known is None else known.median().item()

    @property
    def min_ess(self) -> float | None:
        """The smallest bulk ESS, ignoring NaN; None if there is none."""
        known = _known(self.ess_bulk)
        return None if known is None else known.min().item()


def function_space_convergence(predictions: Predictions) -> Convergence:
    """Compute r-hat and bulk ESS of the log-probability of each label with arviz.

    Source: Vehtari et al. 2021, arXiv 1903.08008. Chains of network parameters do not mix, since the posterior has many
    equivalent modes, but their predictions may. Each member is a chain. The members of NUTS are chains of one posterior
    and should mix. The members of an ensemble are components of a mixture and need not mix; their r-hat measures how
    much more the members differ than the draws of one member. For several labels, the joint log-probability of the
    labels of an image is used.

    Args:
        predictions: predictions with the draws of a Markov chain in chain order
            (`bayes_share.inference.draws.thinning.chain_order`); independent draws may have any order.

    Returns:
        ESS requires at least 4 draws per chain. R-hat requires at least 4 draws per chain, each of which is split in
        two; for a single chain, which is first divided into two chains, it requires 8 draws.
    """
    values = log_likelihood(predictions)
    num_chains, num_draws, _ = values.shape
    if num_draws < _LEAST_DRAWS:
        have = "is 1 draw" if num_draws == 1 else f"are {num_draws} draws"
        return Convergence(
            None, None, f"r-hat and ESS require at least {_LEAST_DRAWS} draws for each chain, and there {have}"
        )
    ess = _arviz_statistic("ess", values)
    if num_chains > 1:
        return Convergence(_arviz_statistic("rhat", values), ess, None)
    if num_draws < 2 * _LEAST_DRAWS:
        reason = f"r-hat of a single chain requires at least {2 * _LEAST_DRAWS} draws, and there are {num_draws}"
        return Convergence(None, ess, reason)
    half = num_draws // 2
    halves = torch.cat([values[:, :half], values[:, -half:]])
    return Convergence(_arviz_statistic("rhat", halves), ess, None)


@dataclass(frozen=True, eq=False)
class Loo:
    """The result of PSIS-LOO, an estimate of the elpd of new data from posterior draws and training data.

    Args:
        elpd_loo: in nats, summed over the training images.
        error: its standard error, ``√n · sd`` of the terms of the images; None for one image.
        p_loo: effective number of parameters.
        pareto_k: ``[image]``, the Pareto shape k of the tail of the importance weights.
        num_bad: the number of images with k above ``min(1 − 1 / log10(draws), 0.7)``, for which the estimate is
            unreliable.
        warning: a sentence about these images; None if there are none.
    """

    elpd_loo: float
    error: float | None
    p_loo: float
    pareto_k: Float64[Tensor, "image"]
    num_bad: int
    warning: str | None


def loo(train: Predictions | Pointwise) -> Loo:
    """Compute Pareto-smoothed importance sampling LOO with arviz (Vehtari, Gelman and Gabry 2017, arXiv 1507.04544).

    The result is meaningless for test images, for draws that are not from the posterior given the training images (a
    point estimate, a tempered chain), and for members that share weights, which are trained on the mean of their
    log-likelihoods. The labels of a multi-label image are left out together, and so are the positions of an example.

    Args:
        train: predictions for the training images; or the log-likelihood of each training example, ``[draw, member,
            example]``, for any likelihood. Each member is a chain.

    Raises:
        InputError: if there are fewer than 25 draws over all members, or fewer than 4 per member.
    """
    values = log_likelihood(train)
    if isinstance(train, Predictions):
        sums, _ = sums_by_example(values.movedim(2, 0), train.examples)
        values = sums.movedim(0, 2)
    num_chains, num_draws, num_images = values.shape
    count = num_chains * num_draws
    if num_draws < _LEAST_DRAWS or count < _LEAST_DRAWS_OF_LOO:
        raise InputError(
            f"PSIS-LOO requires at least {_LEAST_DRAWS_OF_LOO} draws, and {_LEAST_DRAWS} for each chain; there "
            f"are {num_draws} of {num_chains}"
        )
    arviz = import_arviz()
    relative = _arviz_statistic("ess", (values - values.amax((0, 1))).exp()) / count
    efficiency = relative.nan_to_num(1.0).clamp(max=1.0).mean().item()
    dataset = _dataset(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large k are reported below, in the same words for all arviz versions
        found = arviz.loo(as_arviz({"log_likelihood": dataset}), pointwise=True, reff=efficiency)
    elpd_loo, p_loo, pointwise = (
        getattr(found, name if hasattr(found, name) else new)  # names before and since arviz 1.0
        for name, new in (("elpd_loo", "elpd"), ("p_loo", "p"), ("loo_i", "elpd_i"))
    )
    error = math.sqrt(num_images) * float(np.std(pointwise, ddof=1)) if num_images > 1 else None
    pareto_k = torch.from_numpy(found.pareto_k.to_numpy().astype("float64"))
    limit = min(1 - 1 / math.log10(count), 0.7)
    num_bad = int((~(pareto_k <= limit)).sum())
    warning = None
    if num_bad:
        warning = (
            f"the Pareto k of {num_bad} of {num_images} examples is above {limit:.2f}, up to "
            f"{pareto_k.max():.2f}: the estimate is unreliable, use more draws or held-out data"
        )
    return Loo(float(elpd_loo), error, float(p_loo), pareto_k, num_bad, warning)


def _arviz_statistic(name: str, values: Float64[Tensor, "chain draw image"]) -> Float64[Tensor, "image"]:
    arviz = import_arviz()
    with warnings.catch_warnings():
        # Raised if all draws, or all draws of a chain, are equal.
        warnings.filterwarnings("ignore", "(invalid value|divide by zero) encountered", RuntimeWarning)
        found = getattr(arviz, name)(_dataset(values))
    result = torch.from_numpy(found["labels"].to_numpy().astype("float64"))
    is_constant = (values == values[:1, :1]).all(0).all(0).cpu()
    return result.masked_fill(is_constant, torch.nan)


def _dataset(values: Float64[Tensor, "chain draw image"]) -> Any:
    from xarray import Dataset

    return Dataset({"labels": (("chain", "draw", "observation"), values.numpy(force=True))})


def _known(values: Tensor | None) -> Tensor | None:
    """Remove NaN; return None if nothing is left."""
    if values is None or bool(values.isnan().all()):
        return None
    return values[~values.isnan()]
