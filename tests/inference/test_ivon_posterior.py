"""IVON's posterior of a linear regression is the known one, for each network and each of its members."""

from functools import cache, partial

import pytest
from regression import EACH, NUM_DATA, PRIOR_SD, PROBLEMS, Problem, data, draws, misses
from torch import Tensor

from bayes_share.inference import IVON, fit_tensors
from bayes_share.inference.methods.ivon.ivon import IVONState

STEPS = 1200
pytestmark = pytest.mark.usefixtures("unchecked")  # checks take most of the time of a step so small


def algorithm(prior: float = 1.0) -> IVON:
    """Fast, but with little noise in what it ends with; and a prior so many times as precise."""
    decay = {kind: prior / (sd**2 * NUM_DATA) for kind, sd in PRIOR_SD.items()}
    return IVON(
        learning_rate=0.1,
        factor_rate=1.0,
        weight_decay=decay["base"],
        factor_decay=decay["factor"],
        hess_init=5.0,
        factor_hess_init=5.0,
        beta2=0.995,
    )


@cache
def learned(problem: Problem, prior: float = 1.0) -> IVONState:
    return fit_tensors(algorithm(prior), problem.build(), *data(), num_steps=STEPS)


def seen(state: IVONState) -> Tensor:
    return draws(partial(algorithm().draw, state), 1500)


@EACH
def test_the_posterior_is_the_known_one(problem: Problem) -> None:
    untrained = algorithm().init(problem.build(), NUM_DATA, STEPS)
    assert misses(seen(untrained), problem.mean_field())
    assert misses(seen(learned(problem)), problem.mean_field()) == []


@pytest.mark.parametrize("problem", [PROBLEMS[0], PROBLEMS[-1]], ids=lambda problem: problem.name)
@pytest.mark.parametrize("prior", [1e-3, 2.0])
def test_with_another_weight_of_the_prior_it_is_not(problem: Problem, prior: float) -> None:
    assert misses(seen(learned(problem, prior)), problem.mean_field())
