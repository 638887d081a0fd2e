"""Features are what each member's last layer sees, whatever the algorithm and the way of computing."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, Case, Form, case_training, digits, form_builder, trained
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.inference import MAP, Training, batches_of, fit_tensors, predict, predict_with_features
from bayes_share.inference.draws.features import last_inputs, linear_calls
from bayes_share.layers.way import computing
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble, fold

CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
ALL = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def images() -> Tensor:
    return digits().normalise(digits().test.images[:40])


@CASE
@ALL
def test_every_algorithm_gives_the_features_of_its_logits(case: Case, form: Form) -> None:
    run = trained(case_training(case, form_builder(case, form), digits(), 1))
    x = images()
    logits, features = predict_with_features(case.algorithm, run.state, x, num_samples=3, batch_size=17)
    torch.testing.assert_close(logits, predict(case.algorithm, run.state, x, num_samples=3, batch_size=17))
    assert features is not None
    assert features.shape[:2] == (form.members * case.networks, 40)
    assert features.dtype == torch.float32
    lengths = features.norm(dim=-1)
    assert bool((lengths <= 1 + 1e-5).all())
    if not case.is_random:
        torch.testing.assert_close(lengths, torch.ones_like(lengths))
    whole = predict_with_features(case.algorithm, run.state, x, num_samples=3, batch_size=40)[1]
    torch.testing.assert_close(features, whole, atol=1e-5, rtol=1e-4)
    for one in range(len(features)):
        for other in range(one):
            assert (features[one] - features[other]).abs().max() > 1e-3


@CASE
def test_the_mean_over_draws_is_that_of_the_draws(case: Case) -> None:
    run = trained(case_training(case, form_builder(case, FORMS["ensemble"]), digits(), 1))
    one, two = [predict_with_features(case.algorithm, run.state, images(), num_samples=count)[1] for count in (1, 2)]
    assert one is not None
    assert two is not None
    with linear_calls() as calls:
        logits = case.algorithm.draw(run.state, 1)(images())
    inputs = last_inputs(calls, logits)
    assert inputs is not None
    torch.testing.assert_close(two, (one + F.normalize(inputs, dim=-1)) / 2)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 10))


@pytest.mark.parametrize("strategy", ["tile", "loop", "auto"])
@pytest.mark.parametrize("way", ["auto", "activations", "weights"])
def test_all_ways_of_computing_give_the_features_of_the_folded_members(strategy: str, way: str) -> None:
    made = ensemble(network(), 3, strategy=strategy, init="normal")
    state = MAP().init(lambda: Model(made), 10, 10)
    x = images()
    with computing(way):
        features = predict_with_features(MAP(), state, x)[1]
    expected = torch.stack([F.normalize(fold(made, member)[:5](x), dim=-1) for member in range(3)])
    assert features is not None
    torch.testing.assert_close(features, expected.detach(), atol=1e-5, rtol=1e-4)
    assert not any(module._forward_hooks for module in made.modules())
    with linear_calls() as calls:
        pass
    made(x)
    assert calls == []


def test_members_that_are_alike_have_features_each() -> None:
    made = ensemble(network(), 2, init="ones", strategy="loop")
    algorithm = MAP(feed="split")
    features = predict_with_features(algorithm, algorithm.init(lambda: Model(made), 10, 10), images())[1]
    assert features is not None
    assert features.shape == (2, 40, 10)
    assert torch.equal(features[0], features[1])


class Scaled(nn.Module):
    """A network whose outputs are not those of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.inner(x)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize("kind", [Scaled, Convolutional])
@pytest.mark.parametrize("size", [1, 3])
def test_without_a_last_linear_layer_there_are_none(kind: type[nn.Module], size: int) -> None:
    made = kind() if size == 1 else ensemble(kind(), size, init="normal")
    logits, features = predict_with_features(MAP(), MAP().init(lambda: Model(made), 10, 10), images())
    assert logits.shape == (1, size, 40, 10)
    assert features is None


def test_of_a_run_they_are_of_normalised_images() -> None:
    data = digits()
    run = Training(MAP(), partial(Model, network()), batches_of(data, 48), 1)
    logits, features = run.predict_with_features(data.test.images, 2)
    assert torch.equal(logits, run.predict(data.test, 2))
    assert features is not None
    with torch.no_grad():
        expected = F.normalize(run.state.model.network[:5](data.normalise(data.test.images)), dim=-1)
    torch.testing.assert_close(features[0], expected)


def test_a_compiled_network_and_autocast_give_them_too() -> None:
    execution = replace(
        Training(MAP(), partial(Model, network()), batches_of(digits(), 48), 1).execution, precision="bfloat16"
    )
    run = Training(MAP(), partial(Model, network()), batches_of(digits(), 48), 1, execution=execution)
    plain = run.predict_with_features(digits().test.images)[1]
    run.state.model.network.compile(backend="eager")
    compiled = run.predict_with_features(digits().test.images)[1]
    assert plain is not None
    assert compiled is not None
    assert compiled.dtype == torch.float32
    torch.testing.assert_close(plain, compiled)


@pytest.mark.parametrize("changed", ["inputs", "outputs"])
def test_a_change_in_place_after_the_last_layer_is_not_taken_for_it(changed: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            z = self.head(h)
            (h if changed == "inputs" else z).mul_(-10)
            return z

    x = torch.randn(7, 6)
    net = Net()
    state: Any = fit_tensors(MAP(), Model(net), x, torch.zeros(7).long(), 0)
    _, features = predict_with_features(MAP(), state, x)
    if changed == "outputs":
        assert features is None
    else:
        torch.testing.assert_close(features, nn.functional.normalize(net.body(x), dim=-1).detach()[None])
