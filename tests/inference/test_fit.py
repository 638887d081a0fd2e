"""Training in one call: invalid calls and failed trainings raise an error of one line."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.data import load_data
from bayes_share.errors import InputError, RunError
from bayes_share.inference import (
    MAP,
    SGHMC,
    SVI,
    DeepEnsemble,
    Inference,
    LastLayerLaplace,
    MCDropout,
    fit,
    fit_tensors,
    predict,
)
from bayes_share.inference.algorithm import StepInfo
from bayes_share.inference.step.losses import Losses
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

X = torch.linspace(-2, 2, 40)[:, None]
ADAM = MAP(optimizer="adam", learning_rate=0.01)


def curve() -> Model:
    return Model(nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1)), Gaussian(0.1))


class InADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.layer(x)}


def classes(outputs: int) -> Model:
    return Model(nn.Sequential(nn.Flatten(), nn.Linear(64, outputs)))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a network": (
        lambda: fit_tensors(ADAM, curve().network, X, X, 5),
        "Model(network), not the Sequential itself",
    ),
    "an array": (
        lambda: fit_tensors(ADAM, curve(), X.numpy(), X, 5),
        "x must be a tensor, not ndarray",
    ),
    "one number": (
        lambda: fit_tensors(ADAM, curve(), X, torch.tensor(3.0), 5),
        "y must have the examples on the first axis, and is a scalar",
    ),
    "half an example": (lambda: fit_tensors(ADAM, curve(), X, X, 5, batch_size=2.5), "from 1 to 40 examples"),
    "fewer than no step": (
        lambda: fit_tensors(ADAM, curve(), X, X, -1),
        "number of steps must be an integer of at least 0, not -1",
    ),
    "a class": (lambda: fit_tensors(MAP, curve(), X, X, 5), "must be an instance such as MAP(), not the class"),
    "a dict": (lambda: fit_tensors(ADAM, Model(InADict(), Gaussian()), X, X, 5), "this InADict returns a dict"),
    "other classes": (
        lambda: fit(ADAM, classes(7), load_data("digits"), epochs=1),
        "the targets must be from 0 to 6, and 373 of 1260 are not, such as 7: the network has 7 outputs",
    ),
    "a tensor": (lambda: fit(ADAM, classes(10), X), "a pair of tensors (x, y), a DataLoader or another iterable"),
    "no draw": (lambda: predict(ADAM, fit_tensors(ADAM, curve(), X, X, 1), X, num_samples=0), "at least 1 draw, not 0"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.usefixtures("unchecked")
def test_invalid_calls_are_refused_in_one_line(what: str) -> None:
    refused, message = REFUSED[what]
    with pytest.raises(InputError) as caught:
        refused()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("algorithm", [MAP(learning_rate=1e9), SGHMC(learning_rate=0.1)], ids=["map", "sghmc"])
def test_a_non_finite_loss_raises_with_its_step(algorithm: Inference) -> None:
    with pytest.raises(RunError, match=r"^the loss is (inf|nan) at step \d+ of 100, with learning rate"):
        fit_tensors(algorithm, curve, X, torch.sin(2 * X), 100)


def test_losses_are_checked_every_50_steps_on_a_device_and_at_once_on_the_cpu() -> None:
    fine, bad = (
        StepInfo(*torch.tensor([loss, 0.0, 0.0, 0.0, 0.0]), learning_rate=torch.tensor(0.1)) for loss in (1.0, math.inf)
    )
    losses = Losses(1000, torch.device("meta"))
    for step in range(49):
        losses.add(step, bad if step == 3 else fine)
    with pytest.raises(RunError, match="the loss is inf at step 3 of 1000"):
        losses.add(49, fine)
    with pytest.raises(RunError, match="the loss is inf at step 0 of 1000"):
        Losses(1000, torch.device("cpu")).add(0, bad)


def test_non_finite_parameters_after_the_last_step_raise() -> None:
    with pytest.raises(RunError, match="after step 1 of 1 some parameters are NaN or infinite"):
        fit_tensors(MAP(learning_rate=1e38), curve, X, 1e3 * torch.sin(2 * X), 1)
    too_fast = MAP(learning_rate=1e38, weight_decay=1e3)
    with pytest.raises(RunError, match="after step 1 of 1 some parameters are NaN or infinite"):
        fit(too_fast, classes(10), load_data("digits"), epochs=1, batch_size=None)


class OfOneSize(nn.Module):
    """A network that accepts batches of one size only."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.view(self.size, 6))


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize(
    "algorithm", [MAP(), MAP(feed="split"), SVI(), MCDropout(), LastLayerLaplace(), DeepEnsemble(MCDropout(), 2)]
)
def test_a_network_may_require_a_fixed_batch_size(algorithm: Inference, members: int) -> None:
    size = 12 // members if getattr(algorithm, "feed", "tile") == "split" else 12

    def build() -> Model:
        network = OfOneSize(size)
        return Model(ensemble(network, members, init="normal") if members > 1 else network)

    x, y = torch.randn(24, 6), torch.arange(24) % 3
    state = fit_tensors(algorithm, build, x, y, 2, batch_size=12)
    assert predict(algorithm, state, x, 2, batch_size=size).isfinite().all()
