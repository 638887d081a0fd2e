"""SGLD: the stationary distribution of its steps in a linear regression, and its decreasing step size."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from regression import EACH, PROBLEMS, Posterior, Problem, chain_order, data, draws, misses_of_chain
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference import SGHMC, SGLD, fit_tensors

RATE, STEPS, KEPT = 0.03, 2200, 200
CONSTANT = SGLD(learning_rate=RATE, factor_rate=1.0, exponent=0.0, burn_in=1 / 11, keep=KEPT)


def stationary(problem: Problem) -> Posterior:
    """Return the law for a constant step: variance ``1 / (h - η h² / 2)``, curvature h, η = rate / num_data."""
    exact, scales = problem.exact(), problem._scales()
    curvature = torch.linalg.inv(exact.covariance / scales.unsqueeze(-1) / scales.unsqueeze(-2))
    covariance = torch.linalg.inv(curvature - RATE / len(data()[0]) * curvature @ curvature / 2)
    return Posterior(exact.mean, covariance * scales.unsqueeze(-1) * scales.unsqueeze(-2))


def chain(problem: Problem, algorithm: SGLD) -> Tensor:
    state = fit_tensors(algorithm, problem.build(problem.priors()), *data(), STEPS)
    return draws(partial(algorithm.draw, state), KEPT)[chain_order(KEPT)]


@pytest.mark.slow  # the steps equal those of SGHMC, whose distribution is tested, and the noise is tested for each rate
@EACH
def test_samples_have_the_stationary_distribution(problem: Problem, unchecked: None) -> None:
    state = CONSTANT.init(problem.build(problem.priors()), 10, 100)
    assert misses_of_chain(draws(partial(CONSTANT.draw, state), 50), stationary(problem))  # untrained
    assert misses_of_chain(chain(problem, CONSTANT), stationary(problem)) == []


def test_decreasing_steps_reduce_the_bias_of_the_variance(unchecked: None) -> None:
    """In the direction of the largest curvature h, constant steps of 1.77 / h give 8.7 times the variance."""
    problem, large = PROBLEMS[0], replace(CONSTANT, learning_rate=0.171)
    variances, directions = torch.linalg.eigh(problem.exact().covariance[0])
    for algorithm, expected in ((large, 8.7), (replace(large, exponent=1.0, settling=0.02), 1.02)):
        found = chain(problem, algorithm)[:, 0] @ directions[:, 0]
        assert found.var() / variances[0] == pytest.approx(expected, rel=5 * (2 / KEPT) ** 0.5)


@EACH
def test_sgld_equals_sghmc_with_friction_1(problem: Problem) -> None:
    options = {"temperature": 0.3, "learning_rate": 0.05, "factor_rate": 0.7, "clip_norm": 0.5, "accumulate": 2}
    build = problem.build(problem.priors())
    states = [
        fit_tensors(algorithm, build, *data(), 9)
        for algorithm in (SGLD(exponent=0.0, **options), SGHMC(friction=1.0, **options))
    ]
    for one, other in zip(*(state.model.parameters() for state in states), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_step_size_decays_in_addition_to_the_schedule() -> None:
    algorithm = SGLD(exponent=0.5, settling=0.25, warmup=0.1)
    assert algorithm.rate_at(0, 100) == pytest.approx(1 / 11)
    assert algorithm.rate_at(25, 100) == pytest.approx(2**-0.5)
    assert algorithm.rate_at(75, 100) == pytest.approx(0.5)
    state = algorithm.init(PROBLEMS[0].build(PROBLEMS[0].priors()), 10, 100)
    torch.testing.assert_close(
        state.rates, torch.tensor([algorithm.rate_at(step, 100) for step in range(100)], dtype=torch.float64)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"exponent": -0.1}, "exponent must not be"), ({"settling": 0.0}, "settling must be a positive")],
)
def test_invalid_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SGLD(**options)
