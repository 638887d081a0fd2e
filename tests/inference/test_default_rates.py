"""Default learning rates: the one for classes, divided by the steepness of likelihoods for regression and counts."""

import logging
from collections.abc import Callable
from copy import deepcopy
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.inference import (
    MAP,
    SGHMC,
    SGLD,
    SWAG,
    Inference,
    LastLayerLaplace,
    Training,
    batches_of,
    fit_tensors,
    predict,
    predictive,
)
from bayes_share.inference.step.drivers import step
from bayes_share.inference.step.updates import Descent
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.model import Model

RATED: dict[str, Inference[Any]] = {"map": MAP(), "swag": SWAG(), "sghmc": SGHMC(), "sgld": SGLD()}
NOISY: dict[str, Callable[[], Likelihood]] = {
    "learned": lambda: Gaussian(learned=True),
    "predicted": lambda: Gaussian("predicted"),
    "student": lambda: StudentT(4.0, "predicted"),
}


def linear_data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(40, 3)
    return x, x @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(40)


def is_quick(name: str, noise: str, standardise: bool) -> bool:
    """Return whether a case is not slow: every likelihood with MAP, and every algorithm with predicted noise."""
    return not standardise and (name == "map" or noise == "predicted")


@pytest.mark.parametrize(
    ("name", "noise", "standardise"),
    [
        pytest.param(*case, marks=() if is_quick(*case) else pytest.mark.slow)
        for case in product(RATED, NOISY, (False, True))
    ],
)
def test_default_rates_fit_a_line_to_its_noise_level(name: str, noise: str, standardise: bool) -> None:
    x, y = linear_data()
    algorithm, outputs = RATED[name], 1 if noise == "learned" else 2
    steps = 2000 if name == "sgld" else 800
    state = fit_tensors(
        algorithm, lambda: Model(nn.Linear(3, outputs), NOISY[noise]()), x, y, steps, standardise=standardise
    )
    found = predictive(algorithm, state, x, 8)
    # Without scaled rates the error is about 10, or the training diverges.
    assert (found.mean - y).square().mean().sqrt() < 0.25


def test_default_rates_fit_large_counts() -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 2)
    mean = (6 + 0.5 * x[:, 0]).exp()
    state = fit_tensors(MAP(), Model(nn.Linear(2, 1), Poisson()), x, torch.poisson(mean).long(), 3000)
    assert (predictive(MAP(), state, x).mean / mean - 1).abs().median() < 0.1


@pytest.mark.parametrize("algorithm", [MAP, SWAG, SGHMC, SGLD, LastLayerLaplace])
@pytest.mark.parametrize("likelihood", [Categorical, Bernoulli])
def test_the_default_rate_for_classification_is_0_1(algorithm: Any, likelihood: Callable[[], Likelihood]) -> None:
    torch.manual_seed(0)
    x, network = torch.randn(20, 3), nn.Linear(3, 2)
    y = (x[:, 0] > 0).long() if likelihood is Categorical else (x[:, :2] > 0).float()
    found = [
        predict(of, fit_tensors(of, Model(network, likelihood()), x, y, 10, 5), x)
        for of in (algorithm(), algorithm(learning_rate=0.1))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("algorithm", [MAP, SGHMC, SGLD])
def test_a_given_learning_rate_is_not_scaled(algorithm: Any) -> None:
    x, y = linear_data()
    training = Training(
        algorithm(learning_rate=1e-3), lambda: Model(nn.Linear(3, 1), Gaussian(0.1)), batches_of((x, y)), 1
    )
    assert next(training.steps()).learning_rate == pytest.approx(1e-3)


@pytest.mark.parametrize("name", [*NOISY, "known", "poisson"])
def test_steepness_is_the_second_derivative_relative_to_classification(name: str) -> None:
    likelihood = {**NOISY, "known": lambda: Gaussian(0.5), "poisson": Poisson}[name]()
    outputs = torch.randn(2, 5, 2 if name in ("predicted", "student") else 1)
    targets = torch.tensor([[0, 1, 2, 30, 400]]).expand(2, 5)
    if name == "poisson":
        expected = torch.maximum(outputs[..., 0].exp(), targets).mean()
    else:
        information = likelihood.information(outputs)
        assert information is not None
        expected = information.diagonal(dim1=-2, dim2=-1).amax(-1).mean()
    assert torch.allclose(likelihood.steepness(outputs, targets), 4 * expected)


@pytest.mark.parametrize("algorithm", [SGHMC(burn_in=0.5), SGLD(burn_in=0.5)])
def test_the_rate_of_a_chain_is_fixed_once_samples_are_kept(algorithm: SGHMC | SGLD) -> None:
    x, y = linear_data()
    training = Training(
        algorithm, lambda: Model(nn.Linear(3, 1), Gaussian(0.3, learned=True)), batches_of((x, y)), num_steps=40
    )
    found = []
    for _ in training.steps():
        found.append(float(training.state.slowing))
    assert len(set(found[:20])) > 5
    assert len(set(found[20:])) == 1
    again = Training(
        algorithm, lambda: Model(nn.Linear(3, 1), Gaussian(0.3, learned=True)), batches_of((x, y)), num_steps=40
    )
    again.load_state_dict(training.state_dict())
    assert float(again.state.slowing) == found[-1]


@pytest.mark.parametrize(("algorithm", "bearable"), [(SGHMC(), 1), (SGLD(), 4), (MAP(), 1)])
def test_the_first_rate_is_divided_by_the_steepness_above_what_the_algorithm_bears(
    algorithm: Inference[Any], bearable: int
) -> None:
    """The steepness of a noise of 1/4 is 64, and of a noise of 8 it is 1/16."""
    x, y = linear_data()
    for noise, slowing in ((0.25, 64 / bearable), (8.0, 1.0)):
        state = algorithm.init(lambda noise=noise: Model(nn.Linear(3, 1), Gaussian(noise)), 40, 10)
        info = step(algorithm, state, (x, y))
        assert float(info.learning_rate) == pytest.approx(0.1 / slowing)


@pytest.mark.parametrize("is_resumed", [False, True])
def test_momentum_keeps_the_rate_that_each_gradient_had(is_resumed: bool) -> None:
    """SGD with Nesterov momentum whose velocity is a sum of steps: v = 0.9 v + rate g, and p = p - rate g - 0.9 v.

    A loaded state knows the rate of the latest gradient.
    """
    p = nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64))
    descent = Descent(schedule="constant", weight_decay=0.0)
    layer = nn.Linear(2, 1, bias=False)
    layer.weight = p
    stepper = descent.start(descent.groups(layer), 10)
    expected, velocity = p.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for number, steepness in enumerate([1.0, 8.0, 2.0, 0.3]):
        gradient = torch.tensor([1.0, -2.0], dtype=torch.float64) * (number + 1)
        if is_resumed:
            state, stepper = deepcopy(stepper.state_dict()), descent.start(descent.groups(layer), 10)
            stepper.load_state_dict(state)
        stepper.begin()
        p.grad = gradient.clone()
        stepper.steepness = torch.tensor(steepness, dtype=torch.float64)
        rate = 0.1 / max(1.0, steepness)
        assert float(stepper.follow()) == pytest.approx(rate)
        velocity = 0.9 * velocity + rate * gradient
        expected = expected - rate * gradient - 0.9 * velocity
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_rate_of_adam_is_not_divided(optimizer: Any) -> None:
    x, y = linear_data()
    algorithm = MAP(optimizer=optimizer)
    state = algorithm.init(lambda: Model(nn.Linear(3, 1), Gaussian(0.25)), 40, 10)
    assert float(step(algorithm, state, (x, y)).learning_rate) == pytest.approx(0.1)


def test_a_training_that_increased_the_loss_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    x, y = linear_data()
    for rate, is_told in ((5.0, True), (0.01, False)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            fit_tensors(
                MAP(learning_rate=rate, clip_norm=1.0, schedule="constant"),
                Model(nn.Linear(3, 1), Gaussian()),
                x,
                y,
                30,
            )
        assert ("is above that of the first" in caplog.text) is is_told
