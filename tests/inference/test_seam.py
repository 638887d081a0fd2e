"""The two halves of a step, gradient and update: averaged gradients of parts give the step of the whole batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, digits, form_builder
from states import leaves
from torch import Tensor, nn

from bayes_share.data import train_batch
from bayes_share.inference import IVON, MAP, SGHMC, SGLD, SVI, DeepEnsemble, Inference
from bayes_share.inference.algorithm import Batch, GradientMethod
from bayes_share.inference.step.drivers import step, trainings
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.tensors.seeding import seeded

KINDS = ("single", "ensemble", "shared layers")
METHODS = {
    **{name: case.algorithm for name, case in CASES.items() if name not in ("map", "distill", "mc-dropout", "nuts")},
    "map": MAP(factor_decay=0.1, weight_decay=0.1),
    "adamw": MAP(optimizer="adamw", learning_rate=1e-3, factor_decay=0.1),
    "particles": SVI(num_particles=2, learning_rate=1e-2),
    "draws": IVON(samples=2, hess_init=5.0, beta2=0.9),
    "squares": IVON(samples=2, hess_init=5.0, beta2=0.9, hess_approx="gradsq"),
}
"""All but NUTS, which has no halves, and dropout and distillation, whose noise differs between examples."""


def batch_of(rows: Tensor) -> Batch:
    x, y = train_batch(digits(), rows)
    return Batch(x.double(), y)


def step_in_parts(algorithm: Inference[Any], state: Any, parts: list[Batch], key: int) -> None:
    """Take a step with the mean gradient of several parts of a batch, under the same noise."""
    for method, own in trainings(algorithm, state):
        assert isinstance(method, GradientMethod)
        found = []
        for part in parts:
            with seeded("step", key):
                method.gradient(own, part)
            found.append([gradient.clone() for gradient in method.gradients(own)])
        for place, *those in zip(method.gradients(own), *found, strict=True):
            place.copy_(torch.stack(those).mean(0))
        with seeded("step", key):  # some algorithms draw noise in the update
            method.update(own)


@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("name", METHODS)
def test_mean_gradients_of_two_half_batches_give_the_step_of_the_batch(name: str, form: str) -> None:
    """Momentum, Hessians and velocities are equal too."""
    case = CASES.get(name, CASES["map"])
    algorithm = METHODS[name]
    if not isinstance(algorithm, DeepEnsemble | IVON):  # IVON clips each draw
        algorithm = replace(algorithm, clip_norm=0.5)
    build = form_builder(case, FORMS[form], norm="none", dtype=torch.float64)
    states = []
    for _ in range(2):
        with seeded("init"):
            states.append(algorithm.init(build, 240, 10))
    whole, halved = states
    for number in range(3):
        batch = batch_of(torch.arange(48) + 48 * number)
        with seeded("step", number):
            step(algorithm, whole, batch)
        halves = [Batch(batch.inputs[half], batch.targets[half]) for half in (slice(0, 24), slice(24, 48))]
        step_in_parts(algorithm, halved, halves, number)
    expected, found = (dict(leaves(state.state_dict())) for state in states)
    for path, value in expected.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(found[path], value, rtol=1e-8, atol=1e-10)
        else:
            assert found[path] == value, path


STEEP = {
    "map": MAP(),
    "svi": SVI(optimizer="sgd", learning_rate=None),
    "sghmc": SGHMC(),
    "sgld": SGLD(),
}
"""Algorithms whose default learning rate is divided by the steepness of the likelihood."""


@pytest.mark.parametrize("name", STEEP)
def test_half_batches_of_different_steepness_give_the_step_of_the_batch(name: str) -> None:
    """The first half has small outputs and little predicted noise, the second half is less steep."""
    torch.manual_seed(0)
    batches = [Batch(torch.randn(48, 3).double(), torch.randn(48, 1).double()) for _ in range(4)]
    for batch in batches:
        batch.inputs[:24, 0] = -4.0

    def build() -> Model:
        network = nn.Linear(3, 2)
        nn.init.constant_(network.weight[1:, :1], 0.5)
        return Model(network, Gaussian("predicted")).double()

    algorithm, states, halves = STEEP[name], [], (slice(0, 24), slice(24, 48))
    for _ in range(2):
        with seeded("init"):
            states.append(algorithm.init(build, 192, 8))
    whole, halved = states
    for number, batch in enumerate(batches):
        with seeded("step", number):
            info = step(algorithm, whole, batch)
        step_in_parts(algorithm, halved, [Batch(batch.inputs[half], batch.targets[half]) for half in halves], number)
    expected, found = (dict(leaves(state.state_dict())) for state in states)
    assert whole.state_dict()["slowing"] > 4
    assert info.learning_rate < 0.1 / 1.5
    for path, value in expected.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(found[path], value, rtol=1e-8, atol=1e-10)
        else:
            assert found[path] == value, path


def test_a_gradient_without_an_update_does_not_affect_later_gradients() -> None:
    """The first gradient is as after an exception between the two halves of a step."""
    for name, algorithm in METHODS.items():
        case = CASES.get(name, CASES["map"])
        with seeded("init"):
            state = algorithm.init(form_builder(case, FORMS["single"], norm="none", dtype=torch.float64), 240, 10)
        for method, own in trainings(algorithm, state):
            assert isinstance(method, GradientMethod)
            with seeded("step"):
                method.gradient(own, batch_of(torch.arange(48)))
            expected = [gradient.clone() for gradient in method.gradients(own)]
            method.gradient(own, batch_of(torch.arange(48, 96)))
            with seeded("step"):
                method.gradient(own, batch_of(torch.arange(48)))
            torch.testing.assert_close(list(method.gradients(own)), expected, rtol=0, atol=0)
