"""Draws have the same random numbers on every device, and reach it in few copies."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from algorithms import builder, digits, trained
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bayes_share.inference import IVON, SVI, SWAG, Training, batches_of, predict
from bayes_share.inference.draws.features import predict_with_features
from bayes_share.inference.draws.host_draws import normal_noise
from bayes_share.inference.methods.ivon.ivon import IVONState
from bayes_share.inference.methods.ivon.optimizer import IVONOptimizer
from bayes_share.inference.methods.swag import Moments
from bayes_share.inference.predictive import predict_arguments
from bayes_share.inference.step.clock import Clock
from bayes_share.inference.step.steps import Steps
from bayes_share.inference.step.updates import Stepper
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.tensors.seeding import generator

SHAPES = [(1,), (3, 5), (16,), (17,), (), (0,), (2, 3, 4), (1000,), (31, 33)]


class Copies(TorchDispatchMode):
    """Counts copies from the CPU to the meta device, which stands for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default and args[0].device.type == "cpu":
            self.count += found.device.type == "meta"
        return found


@pytest.mark.parametrize("dtypes", [[torch.float32], [torch.float64], [torch.float32, torch.float64]])
def test_noise_has_the_values_of_separate_calls(dtypes: list[torch.dtype]) -> None:
    like = [torch.empty(shape, dtype=dtypes[number % len(dtypes)]) for number, shape in enumerate(SHAPES)]
    random, same = generator("draw", 3), generator("draw", 3)
    found = normal_noise(like, random)
    expected = [torch.randn(tensor.shape, dtype=tensor.dtype, generator=same) for tensor in like]
    assert [(each.dtype, each.shape) for each in found] == [(each.dtype, each.shape) for each in expected]
    assert all(map(torch.equal, found, expected))
    assert torch.equal(random.get_state(), same.get_state())


def draws_of_ivon() -> Callable[[], object]:
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).to("meta")
    optimizer = IVONOptimizer(network.parameters(), lr=0.1, ess=10.0)
    stepper = Stepper(optimizer, Steps(), Clock.start(10, torch.device("cpu")), torch.ones(10), torch.ones(()))
    state = IVONState(Model(network), stepper)
    return lambda: IVON().draw(state, 0)


def draws_of_swag() -> Callable[[], object]:
    values = {str(number): torch.zeros(8, number + 1, device="meta") for number in range(6)}
    moments = Moments(2, values, values, [values, values])
    return lambda: moments.draw(generator("draw", 0), 1.0)


@pytest.mark.parametrize("make", [draws_of_ivon, draws_of_swag])
def test_a_draw_is_copied_to_the_device_at_once(make: Callable[[], Callable[[], object]]) -> None:
    draw = make()
    with Copies() as copies:
        draw()
    assert copies.count == 1


def test_a_draw_of_ivon_has_the_noise_of_separate_calls() -> None:
    training = trained(Training(IVON(hess_init=5.0), builder(3, widths=(16,)), batches_of(digits(), 48), 1))
    state, random = training.state, generator("draw", 2)
    (part,) = training.algorithm.draw(state, 2).parts
    assert len(part.values) == len(list(state.model.parameters()))
    for name, mean in state.model.named_parameters():
        sd = state.optimizer.sd(mean)
        assert torch.equal(part.values[name], mean + torch.randn(mean.shape, generator=random) * sd)


def test_a_draw_of_swag_has_the_noise_of_separate_calls() -> None:
    training = trained(Training(SWAG(rank=2), builder(1, widths=(16,)), batches_of(digits(), 48), 2))
    moments, random = training.state.moments, generator("draw", 2)
    one, two = torch.randn(2, generator=random, dtype=torch.float64).tolist()
    found = training.algorithm.draw(training.state, 2).parts[0].values
    for name, mean in moments.mean.items():
        deviation = 0.5**0.5 * (moments.squares[name] / moments.count).sqrt()
        deviation = deviation * torch.randn(mean.shape, generator=random)
        for coefficient, column in zip((one, two), moments.deviations, strict=True):
            deviation = deviation + 2**-0.5 * coefficient * column[name]
        torch.testing.assert_close(found[name], mean + deviation, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("guide", ["normal", "low-rank"])
def test_a_draw_of_svi_has_the_noise_of_separate_calls(guide: Any) -> None:
    training = trained(Training(SVI(guide=guide), builder(1, widths=(16,)), batches_of(digits(), 48), 1))
    (one,), random = training.state.each_guide, generator("draw", 2)
    noise = torch.randn(one.loc.shape, generator=random)
    if guide == "low-rank":
        columns = torch.randn(one.factor[:, 0].shape, generator=random)
        noise = noise + (one.factor @ columns[..., None])[..., 0]
    expected = torch.cat([value.flatten() for value in one.values(one.loc + one.log_scale.exp() * noise).values()])
    found = training.state.values([one(generator("draw", 2))])
    torch.testing.assert_close(torch.cat([value.flatten() for value in found.values()]), expected)


@pytest.mark.parametrize("ask", [predict, predict_with_features, predict_arguments])
def test_each_draw_of_a_prediction_is_drawn_once(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    state = SVI().init(lambda: Model(nn.Linear(2, 1), Gaussian(0.1)), 10, 10)
    drawn, draw = [], SVI.draw

    def counted(self: SVI, state: Any, sample: int) -> Any:
        drawn.append(sample)
        return draw(self, state, sample)

    monkeypatch.setattr(SVI, "draw", counted)
    ask(SVI(), state, torch.zeros(5, 2), 3, batch_size=2)
    assert drawn == [0, 1, 2]
