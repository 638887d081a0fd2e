"""IVON finds the known posterior of linear regressions, for each network and each of its members."""

from functools import cache, partial

import pytest
from regression import EACH, NUM_DATA, PRIOR_SD, PROBLEMS, Problem, data, draws, misses
from torch import Tensor

from bayes_share.inference import IVON, fit_tensors
from bayes_share.inference.methods.ivon.ivon import IVONState

STEPS = 1200
pytestmark = pytest.mark.usefixtures("unchecked")  # annotation checks take most of the time of such small steps


def algorithm(prior: float = 1.0) -> IVON:
    """Return a fast IVON with little noise at the end, and with the prior precision multiplied by `prior`."""
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
def fitted(problem: Problem, prior: float = 1.0) -> IVONState:
    return fit_tensors(algorithm(prior), problem.build(), *data(), num_steps=STEPS)


def posterior_draws(state: IVONState) -> Tensor:
    return draws(partial(algorithm().draw, state), 1500)


@EACH
def test_the_fitted_posterior_is_the_mean_field_solution(problem: Problem) -> None:
    untrained = algorithm().init(problem.build(), NUM_DATA, STEPS)
    assert misses(posterior_draws(untrained), problem.mean_field())
    assert misses(posterior_draws(fitted(problem)), problem.mean_field()) == []


@pytest.mark.parametrize("problem", [PROBLEMS[0], PROBLEMS[-1]], ids=lambda problem: problem.name)
@pytest.mark.parametrize("prior", [1e-3, 2.0])
def test_a_wrong_prior_precision_gives_another_posterior(problem: Problem, prior: float) -> None:
    assert misses(posterior_draws(fitted(problem, prior)), problem.mean_field())
