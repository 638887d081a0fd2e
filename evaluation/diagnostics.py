"""How far draws can be trusted: convergence in function space, and PSIS-LOO. arviz is imported where it is used."""

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
from bayes_share.evaluation.predictions import Predictions

_LEAST_DRAWS = 4  # of a chain, by arviz
_LEAST_DRAWS_OF_LOO = 25  # of which the largest fifth are the tail: arviz fits none to fewer than 5


@dataclass(frozen=True, eq=False)
class Convergence:
    """How well chains have mixed, judged by what they predict.

    Args:
        rhat: ``[image]``, of the log-probability of the label; None where there are too few draws. NaN where all draws
            say exactly the same, and infinite where those of a chain do, and chains differ.
        ess_bulk: ``[image]``, effective draws over all chains; None and NaN alike.
        reason: what is missing, and why; None where nothing is.
    """

    rhat: Float64[Tensor, "image"] | None
    ess_bulk: Float64[Tensor, "image"] | None
    reason: str | None

    @property
    def max_rhat(self) -> float | None:
        """Of the images where it is a number."""
        known = _known(self.rhat)
        return None if known is None else known.max().item()

    @property
    def median_rhat(self) -> float | None:
        """Of the images where it is a number."""
        known = _known(self.rhat)
        return None if known is None else known.median().item()

    @property
    def min_ess(self) -> float | None:
        """Of the images where it is a number."""
        known = _known(self.ess_bulk)
        return None if known is None else known.min().item()


def function_space_convergence(predictions: Predictions) -> Convergence:
    """R-hat and bulk ESS of the log-probability of each label (Vehtari et al. 2021, arXiv 1903.08008), by arviz.

    Parameters of networks have no modes in common and never mix; what they predict may. Each member is a chain. The
    members of NUTS are chains of one posterior, and should mix. Those of an ensemble are components of a mixture with
    factors of their own, and need not: there r-hat says how much more they differ than the draws of one member. Of
    several labels it is the log-probability of all of an image's labels together.

    Args:
        predictions: with the draws in the order in which a chain made them
            (`bayes_share.inference.draws.thinning.chain_order`); of independent draws in any order.

    Returns:
        ESS from 4 draws a chain on. R-hat from 4 draws a chain on where there are several, each split in two; a single
        chain is cut in halves first, which takes 8 draws.
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
    """PSIS-LOO: what the elpd of new data would be, from draws of the posterior of the training data.

    Args:
        elpd_loo: in nats, the sum over training images.
        error: its standard error, ``√n · sd`` of the images' terms; None for one image.
        p_loo: effective number of parameters.
        pareto_k: ``[image]``, the shape of the tail of each image's importance weights.
        num_bad: images whose shape is above ``min(1 − 1 / log10(draws), 0.7)``, for which the estimate is unreliable.
        warning: in a sentence, where there are such images; else None.
    """

    elpd_loo: float
    error: float | None
    p_loo: float
    pareto_k: Float64[Tensor, "image"]
    num_bad: int
    warning: str | None


def loo(train: Predictions | Pointwise) -> Loo:
    """Pareto-smoothed importance sampling LOO (Vehtari, Gelman and Gabry 2017, arXiv 1507.04544), by arviz.

    Args:
        train: predictions for the training images, by draws of the posterior of just these; or the log-likelihood of
            each training example ``[draw, member, example]`` by any likelihood. Each member is a chain. Test images,
            draws that are no posterior's (a point, a tempered chain), or members that share weights, whose posterior
            has the members' mean log-likelihood, make a number without a meaning. Several labels of an image are left
            out together.

    Raises:
        InputError: fewer than 25 draws over all members, or fewer than 4 of each: no tail can be fitted.
    """
    values = log_likelihood(train)
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
        warnings.simplefilter("ignore")  # its warning of large k is said below, in the same words on all its versions
        found = arviz.loo(as_arviz({"log_likelihood": dataset}), pointwise=True, reff=efficiency)
    elpd_loo, p_loo, pointwise = (
        getattr(found, name if hasattr(found, name) else new)  # by their names before and since arviz 1.0
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
        # Where all draws are the same, or all of each chain.
        warnings.filterwarnings("ignore", "(invalid value|divide by zero) encountered", RuntimeWarning)
        found = getattr(arviz, name)(_dataset(values))
    result = torch.from_numpy(found["labels"].to_numpy().astype("float64"))
    is_constant = (values == values[:1, :1]).all(0).all(0).cpu()
    return result.masked_fill(is_constant, torch.nan)


def _dataset(values: Float64[Tensor, "chain draw image"]) -> Any:
    from xarray import Dataset

    return Dataset({"labels": (("chain", "draw", "observation"), values.numpy(force=True))})


def _known(values: Tensor | None) -> Tensor | None:
    """The numbers among them; None where there are none."""
    if values is None or bool(values.isnan().all()):
        return None
    return values[~values.isnan()]
