"""IVON's posterior of a linear regression is the known one, for each network and member; its options do what they say."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from explicit import close, perturb
from regression import NUM_DATA, PRIOR_SD, PROBLEMS, Posterior, Problem, data, draws, misses
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import IVON, Build, fit_tensors
from bayes_share.inference.ivon import IVONState
from bayes_share.models.model import Model
from bayes_share.seeding import seeded
from bayes_share.sharing import ensemble

EACH = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
STEPS = 4000


def algorithm(prior: float = 1.0) -> IVON:
    """With noise that has died out at the end, as far as it can; and a prior so many times as precise."""
    decay = {kind: prior / (sd**2 * NUM_DATA) for kind, sd in PRIOR_SD.items()}
    return IVON(
        learning_rate=0.1,
        factor_rate=1.0,
        weight_decay=decay["base"],
        factor_decay=decay["factor"],
        hess_init=10.0,
        factor_hess_init=10.0,
        beta2=0.998,
    )


@cache
def learned(problem: Problem, prior: float = 1.0) -> IVONState:
    return fit_tensors(algorithm(prior), problem.build(), *data(), num_steps=STEPS)


def exact_draws(state: IVONState, count: int = 1500) -> Tensor:
    return draws(partial(IVON().draw, state), count)


@EACH
def test_the_posterior_is_the_known_one(problem: Problem) -> None:
    untrained = algorithm().init(problem.build(), NUM_DATA, STEPS)
    assert misses(exact_draws(untrained), problem.mean_field())
    assert misses(exact_draws(learned(problem)), problem.mean_field()) == []


@EACH
@pytest.mark.parametrize("prior", [1e-3, 2.0])
def test_with_another_weight_of_the_prior_it_is_not(problem: Problem, prior: float) -> None:
    assert misses(exact_draws(learned(problem, prior)), problem.mean_field())
