"""Features are the inputs of each member's last layer, whatever the algorithm and the strategy."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, Case, Form, case_training, digits, form_builder, trained
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from bayes_share.inference import MAP, Training, batches_of, predict, predict_with_features
from bayes_share.inference.draws.linear_calls import catch
from bayes_share.inference.draws.output_layer import find_output_layer
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble, fold

CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
ALL = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def images() -> Tensor:
    return digits().normalise(digits().test.images[:40])


@CASE
@ALL
def test_every_algorithm_returns_features_with_its_logits(case: Case, form: Form) -> None:
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
def test_features_are_averaged_over_draws(case: Case) -> None:
    run = trained(case_training(case, form_builder(case, FORMS["ensemble"]), digits(), 1))
    one, two = [predict_with_features(case.algorithm, run.state, images(), num_samples=count)[1] for count in (1, 2)]
    assert one is not None
    assert two is not None
    forward = case.algorithm.draw(run.state, 1)
    inputs, logits = find_output_layer(forward, images(), 1).inputs(forward, images())
    torch.testing.assert_close(two, (one + F.normalize(inputs.unflatten(0, logits.shape[:2]), dim=-1)) / 2)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 10))


@pytest.mark.parametrize("strategy", ["tile", "loop", "auto"])
@pytest.mark.parametrize("way", ["auto", "activations", "weights"])
def test_every_strategy_gives_the_features_of_the_folded_members(strategy: str, way: str) -> None:
    made = ensemble(network(), 3, strategy=strategy, init="normal", way=way)
    state = MAP().init(lambda: Model(made), 10, 10)
    x = images()
    features = predict_with_features(MAP(), state, x)[1]
    expected = torch.stack([F.normalize(fold(made, member)[:5](x), dim=-1) for member in range(3)])
    assert features is not None
    torch.testing.assert_close(features, expected.detach(), atol=1e-5, rtol=1e-4)
    assert not any(module._forward_hooks for module in made.modules())
    assert not _global_forward_hooks
    assert not _global_forward_pre_hooks


def test_equal_members_each_have_features() -> None:
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
def test_a_network_without_a_last_linear_layer_has_no_features(kind: type[nn.Module], size: int) -> None:
    made = kind() if size == 1 else ensemble(kind(), size, init="normal")
    logits, features = predict_with_features(MAP(), MAP().init(lambda: Model(made), 10, 10), images())
    assert logits.shape == (1, size, 40, 10)
    assert features is None


def test_features_of_a_training_are_computed_from_normalised_images() -> None:
    data = digits()
    run = Training(MAP(), partial(Model, network()), batches_of(data, 48), 1)
    logits, features = run.predictor.with_features(data.test.images, 2)
    assert torch.equal(logits, run.predict(data.test, 2))
    assert features is not None
    with torch.no_grad():
        expected = F.normalize(run.state.model.network[:5](data.normalise(data.test.images)), dim=-1)
    torch.testing.assert_close(features[0], expected)


def test_a_compiled_network_under_autocast_gives_the_same_features() -> None:
    execution = replace(
        Training(MAP(), partial(Model, network()), batches_of(digits(), 48), 1).execution, precision="bfloat16"
    )
    run = Training(MAP(), partial(Model, network()), batches_of(digits(), 48), 1, execution=execution)
    plain = run.predictor.with_features(digits().test.images)[1]
    run.state.model.network.compile(backend="eager")
    compiled = run.predictor.with_features(digits().test.images)[1]
    assert plain is not None
    assert compiled is not None
    assert compiled.dtype == torch.float32
    torch.testing.assert_close(plain, compiled)


class Headed(nn.Module):
    """A body, two heads with equal weights, and a function that uses them."""

    def __init__(self, use: Callable[["Headed", Tensor], Tensor], outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.twin = nn.Linear(4, 5), nn.Linear(5, outputs), nn.Linear(5, outputs)
        self.twin.load_state_dict(self.head.state_dict())
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, self.body(x).tanh())


def shifted_in_place(net: Headed, h: Tensor) -> Tensor:
    z = net.head(h)
    z += torch.arange(3.0)
    return z


def inputs_overwritten(net: Headed, h: Tensor) -> Tensor:
    z = net.head(h)
    h.mul_(-10)
    return z


def sorted_inside(net: Headed, h: Tensor) -> Tensor:
    order = h[:, 0].argsort()
    return net.head(h[order])[order.argsort()]


def twin_first(net: Headed, h: Tensor) -> Tensor:
    net.twin(h.roll(1, 0)).roll(-1, 0)  # the same values, from other inputs
    return net.head(h)


FOUND: dict[str, Callable[[Headed, Tensor], Tensor]] = {
    "unchanged": lambda net, h: net.head(h),
    "float64": lambda net, h: net.head(h).double(),
    "float16": lambda net, h: net.head(h).half(),
    "bfloat16": lambda net, h: net.head(h).bfloat16(),
    "reshaped": lambda net, h: net.head(h[:, None, None])[:, 0, 0],
    "transposed in memory": lambda net, h: net.head(h).T.contiguous().T,
    "permuted": lambda net, h: net.head(h)[:, [2, 0, 1]],
    "sliced": lambda net, h: net.head(h)[:, 1:],
    "the first of several positions": lambda net, h: net.head(torch.stack([h, 2 * h.flip(0), h.flip(1)], 1))[:, 0],
    "the last of several positions": lambda net, h: net.head(torch.stack([2 * h.flip(0), h.flip(1), h], 1))[:, -1],
    "with a constant": lambda net, h: net.head(h) + torch.tensor([1e3, 0.0, -2.0]),
    "with a constant in place": shifted_in_place,
    "inputs overwritten": inputs_overwritten,
    "clamped": lambda net, h: net.head(h).clamp(-30, 30),
    "rows in the reverse order": lambda net, h: net.head(h.flip(0)).flip(0),
    "rows sorted inside": sorted_inside,
    "a layer with equal outputs before": twin_first,
    "another head after": lambda net, h: (net.head(h), net.twin(h.flip(1)))[0],
    "called with a keyword": lambda net, h: net.head(input=h),
    "called twice": lambda net, h: (net.head(h.flip(1)), net.head(h))[1],
}

MEMBERS = pytest.mark.parametrize(("size", "strategy"), [(1, "auto"), (3, "tile"), (3, "loop")])


def features_of(net: nn.Module, x: Tensor, size: int, strategy: Any) -> tuple[nn.Module, Tensor | None]:
    made = net if size == 1 else ensemble(net, size, init="normal", strategy=strategy)
    state = MAP().init(lambda: Model(made), 10, 10)
    logits, features = predict_with_features(MAP(), state, x, num_samples=2, batch_size=9)
    assert torch.equal(logits, predict(MAP(), state, x, num_samples=2, batch_size=9))
    return made, features


def bodies(made: nn.Module, x: Tensor, size: int) -> Tensor:
    members = [made] if size == 1 else [fold(made, member) for member in range(size)]
    return F.normalize(torch.stack([member.body(x).tanh() for member in members]), dim=-1).detach()


@MEMBERS
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("name", FOUND)
def test_the_last_layer_is_found_if_its_outputs_are_rearranged_or_shifted(
    name: str, zero: bool, size: int, strategy: Any
) -> None:
    if name == "rows sorted inside" and strategy == "tile":
        pytest.skip("the rows of all members are sorted as one batch, which mixes the members")
    net = Headed(FOUND[name])
    if zero:
        for layer in (net.head, net.twin):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
    x = torch.randn(21, 4)
    made, features = features_of(net, x, size, strategy)
    assert features is not None
    torch.testing.assert_close(features, bodies(made, x, size))


@pytest.mark.parametrize("zero", [False, True])
def test_features_are_right_if_only_rows_of_later_batches_are_reordered(zero: bool) -> None:
    net = Headed(sorted_inside)
    if zero:
        nn.init.zeros_(net.head.weight)
    x = torch.randn(21, 4)
    x[:2] = x[:2][net.body(x[:2])[:, 0].argsort()]  # already in order in the trial, which uses two rows
    features = features_of(net, x, 1, "auto")[1]
    assert features is not None
    torch.testing.assert_close(features, bodies(net, x, 1))


def shifted_by_the_batch(net: Headed, h: Tensor) -> Tensor:
    z = net.head(h)
    return z + 1e-4 * z.mean(0)


OTHERS: dict[str, Callable[[Headed, Tensor], Tensor]] = {
    "scaled": lambda net, h: 2 * net.head(h),
    "scaled in place": lambda net, h: net.head(h).mul_(-10),
    "the sum of two": lambda net, h: net.head(h) + net.twin(2 * h),
    "side by side": lambda net, h: torch.cat([net.head(h)[:, :2], net.twin(h)[:, 2:]], 1),
    "plus a function of the inputs": lambda net, h: net.head(h) + h[:, :3],
    "centred over the batch": lambda net, h: net.head(h) - net.head(h).mean(0),
    "shifted a little by the batch": shifted_by_the_batch,
    "rectified": lambda net, h: (net.head(h) + 5).relu(),
    "normalised": lambda net, h: net.head(h).log_softmax(-1),
    "masked": lambda net, h: net.head(h) * torch.tensor([1.0, 0.0, 1.0]),
    "the mean of positions": lambda net, h: net.head(torch.stack([h, 2 * h], 1)).mean(1),
    "positions side by side": lambda net, h: net.head(torch.stack([h, 2 * h], 1)).flatten(1),
}


@MEMBERS
@pytest.mark.parametrize("name", OTHERS)
def test_outputs_that_are_not_rows_of_one_linear_layer_have_no_features(name: str, size: int, strategy: Any) -> None:
    assert features_of(Headed(OTHERS[name]), torch.randn(21, 4), size, strategy)[1] is None


def test_of_two_layers_with_equal_outputs_the_last_gives_the_features() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3, bias=False))
    nn.init.eye_(net[1].weight)
    x = torch.randn(21, 4)
    features = features_of(net, x, 1, "auto")[1]
    assert features is not None
    torch.testing.assert_close(features[0], F.normalize(net[0](x), dim=-1).detach())


def test_a_network_with_a_fixed_batch_size_has_features() -> None:
    net = Headed(lambda net, h: net.head(h.view(9, 5)))
    assert features_of(net, torch.randn(18, 4), 1, "auto")[1] is not None


def test_features_change_neither_random_draws_nor_the_chosen_strategy() -> None:
    net = Headed(lambda net, h: net.head(F.dropout(h, 0.5)))
    x = torch.randn(12, 4)
    state = MAP().init(lambda: Model(net), 10, 10)
    torch.manual_seed(1)
    expected = predict(MAP(), state, x)
    torch.manual_seed(1)
    logits, features = predict_with_features(MAP(), state, x)
    assert torch.equal(logits, expected)
    assert features is not None
    made = ensemble(Headed(FOUND["unchanged"]), 3, init="normal")
    predict_with_features(MAP(), MAP().init(lambda: Model(made), 10, 10), x)
    assert made.strategy == "tile"


def test_only_the_last_layers_inputs_and_outputs_are_copied() -> None:
    net = nn.Sequential(
        nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 2), nn.Linear(2, 3)
    )
    forward = MAP().draw(MAP().init(lambda: Model(net), 10, 10), 0)
    layer = find_output_layer(forward, torch.randn(2, 4), 1)
    caught = catch(forward, torch.randn(50, 4), layer.numbers)
    assert [tensor.shape for tensor in (*caught.inputs, *caught.products)] == [(50, 2), (50, 3)]
