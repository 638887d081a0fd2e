"""`feed` "own" and "bootstrap": each member has its own order, augmentation and weights of the data."""

import math
from typing import Any

import pytest
import torch
from algorithms import CASES, builder, digits, fed, trained
from states import differences, through_bytes
from torch import Tensor, nn
from toy_data import COUNT, SIZE, Again, X, Y, indices_of, loader, on_cpu

from bayes_share.errors import InputError
from bayes_share.inference import MAP, DeepEnsemble, Inference, Training, batches_of, fit_tensors
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.batches.rows import Rows, bootstrap_counts
from bayes_share.inference.batches.source import Source
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

CPU = torch.device("cpu")
FED = {name: case for name, case in CASES.items() if case.split is not None}


def epoch(source: Source, seed: int = 0, number: int = 0) -> list[Batch]:
    return list(source.epoch(seed, number, 0))


def test_each_member_sees_each_example_once_in_its_own_order() -> None:
    source = batches_of((torch.arange(10), torch.arange(10)), 4, "pad").fed(Feeding(3))
    assert (source.num_data, source.steps_per_epoch) == (10, 3)
    inputs = torch.stack([batch.inputs.view(3, 4) for batch in epoch(source)], 1).flatten(1)
    weights = torch.stack([batch.weights.view(3, 4) for batch in epoch(source)], 1).flatten(1)
    orders = [inputs[member][weights[member] > 0].tolist() for member in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert torch.equal(weights.sum(1), torch.full((3,), 10.0))
    usual = epoch(batches_of((torch.arange(10), torch.arange(10)), 4, "pad"))
    assert all(torch.equal(one.inputs[:4], other.inputs) for one, other in zip(epoch(source), usual, strict=True))


def test_each_member_has_its_own_augmentation() -> None:
    source = batches_of(digits("crop", 64), 64).fed(Feeding(2))
    (batch,) = epoch(source)
    plain = source.inputs(source.data.train.images).flatten(1)
    shown = batch.inputs.flatten(1).unflatten(0, (2, 64))
    pairs = [shown[member][batch.targets.view(2, 64)[member].argsort(stable=True)] for member in range(2)]
    assert batch.inputs.shape == (128, *source.data.train.images.shape[1:])
    assert not any(torch.equal(part.sort(0).values, plain.sort(0).values) for part in pairs)
    assert not torch.equal(pairs[0], pairs[1])


@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_a_members_inputs_affect_only_its_own_gradients(strategy: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))
    model = Model(ensemble(net, 3, "normal", strategy=strategy), Gaussian(1.0)).double()
    batch = next(batches_of((X.double(), Y.double()), 4).fed(Feeding(3)).epoch(0, 0, 0))
    steps = MAP(feed="own").descent.steps
    own = {name: p for name, p in model.named_parameters() if name.split(".")[-1] in ("r", "s", "bias")}

    def gradients(inputs: Tensor) -> dict[str, Tensor]:
        model.zero_grad()
        steps.add_gradient(model, batch._replace(inputs=inputs))
        return {name: p.grad.clone() for name, p in own.items() if p.grad is not None}

    changed = batch.inputs.clone()
    changed[4:8] += 1.0  # the rows of member 1
    before, after = gradients(batch.inputs), gradients(changed)
    assert len(before) == len(own) == 6
    for name, gradient in before.items():
        differs = [not torch.equal(one, other) for one, other in zip(gradient, after[name], strict=True)]
        assert differs[0] is differs[2] is False, name
        assert differs[1] or name.endswith("1.bias"), name


def test_bootstrap_gradients_are_those_of_each_members_weighted_data() -> None:
    net = nn.Linear(2, 1, bias=False)
    model = Model(ensemble(net, 2, "normal"), Gaussian(1.0)).double()
    x, y = X.double(), Y.double()
    batch = next(batches_of((x, y)).fed(Feeding(2, is_bootstrap=True)).epoch(3, 0, 0))
    counts = bootstrap_counts(len(x), 3, 2, CPU).double()
    MAP(feed="bootstrap", accumulate=2).descent.steps.add_gradient(model, batch)
    layer = model.network.network
    for member in range(2):
        s = layer.s.detach()[member].clone().requires_grad_()
        outputs = x @ (layer.weight.detach() * s[:, None] * layer.r.detach()[member]).T
        loss = -(counts[member] * Gaussian(1.0).double().log_lik(outputs[None], y[None])[0]).sum() / counts.sum()
        (expected,) = torch.autograd.grad(loss, s)
        assert torch.allclose(layer.s.grad[member], expected, rtol=1e-6)  # weights are float32


def test_bootstrap_counts_sum_to_the_data_size_and_are_equal_in_all_epochs() -> None:
    members, count = 200, 500
    counts = bootstrap_counts(count, 0, members, CPU)
    assert torch.equal(counts.sum(1), torch.full((members,), float(count)))
    # 1/e of 100,000 counts are expected to be 0, with a standard error below 0.0016.
    assert (counts == 0).double().mean().item() == pytest.approx(math.exp(-1), abs=0.008)
    assert not torch.equal(counts, bootstrap_counts(count, 1, members, CPU))
    assert len(counts.unique(dim=0)) == members
    rows = Rows(50, 20, "pad", Feeding(2, is_bootstrap=True))
    own = bootstrap_counts(50, 4, 2, CPU)
    for number in range(2):
        seen = torch.zeros(2, 50)
        for which, weights in rows.epoch(4, number, 0, CPU):
            assert weights is not None
            seen.scatter_add_(1, which.view(2, 20), weights.view(2, 20))
        assert torch.equal(seen, own)


def test_parts_of_a_batch_with_zero_weights_have_zero_gradients() -> None:
    model = Model(ensemble(nn.Linear(2, 1), 2, "normal"), Gaussian(1.0))
    batch = Batch(X[:4], Y[:4], torch.zeros(4))
    MAP(feed="bootstrap", accumulate=2).descent.steps.add_gradient(model, batch)
    assert all(bool((p.grad == 0).all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("feed", ["own", "bootstrap"])
@pytest.mark.parametrize("name", FED)
def test_a_resumed_training_ends_with_the_same_bits(name: str, feed: str) -> None:
    case, data = FED[name], digits("crop", 96)

    def training() -> Training:
        return Training(fed(case.algorithm, feed), builder(3), batches_of(data, 40, "pad"), 2)

    whole, first = trained(training()), trained(training(), 2)
    assert math.isfinite(whole.history[-1]["loss"])
    saved, second = through_bytes(first.state_dict()), training()
    second.load_state_dict(saved)
    assert not differences(trained(second).state.state_dict(), whole.state.state_dict())
    tiled = trained(Training(fed(case.algorithm, "tile"), builder(3), batches_of(data, 40, "pad"), 2))
    assert differences(tiled.state.state_dict(), whole.state.state_dict())


@pytest.mark.parametrize("name", sorted(FED.keys() - {"deep-ensemble"}))  # its networks have their own data
def test_with_one_member_own_data_are_ordinary_batches(name: str) -> None:
    case, data = FED[name], digits("crop", 96)

    def build() -> Model:
        model = builder(1)()
        return Model(ensemble(model.network, 1, "normal"))

    own, tiled = (
        trained(Training(fed(case.algorithm, feed), build, batches_of(data, 40), 1)) for feed in ("own", "tile")
    )
    assert not differences(own.state.state_dict(), tiled.state.state_dict())
    single = trained(Training(fed(case.algorithm, "own"), builder(1), batches_of(data, 40), 1))
    assert math.isfinite(single.history[-1]["loss"])


def test_equal_members_differ_after_training_on_their_own_data() -> None:
    build = builder(3, init="ones")
    with pytest.raises(InputError, match='use feed="own" or "split"'):
        Training(MAP(), build, batches_of(digits(), 48), 1)
    state = trained(Training(MAP(feed="own"), build, batches_of(digits(), 48), 1)).state
    s = next(p for name, p in state.model.named_parameters() if name.endswith(".s"))
    assert not torch.equal(s[0], s[1])


def test_fit_tensors_accepts_feed_bootstrap() -> None:
    model = Model(ensemble(nn.Linear(2, 1), 2, "normal"), Gaussian(10.0))
    algorithm = MAP(feed="bootstrap", learning_rate=1e-4)
    state = fit_tensors(algorithm, model, X, Y, 3, 4)
    assert bool(next(state.model.parameters()).isfinite().all())


@pytest.mark.parametrize("last_batch", ["drop", "pad"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_each_member_its_own_order(workers: int, last_batch: Any) -> None:
    source = on_cpu(batches_of(loader(num_workers=workers), last_batch=last_batch)).fed(Feeding(3))
    usual = epoch(on_cpu(batches_of(loader(), last_batch=last_batch)))
    batches = epoch(source)
    assert len(batches) == len(usual) == source.steps_per_epoch
    seen: list[list[int]] = [[], [], []]
    for batch, one in zip(batches, usual, strict=True):
        assert torch.equal(batch.inputs[:SIZE], one.inputs)
        weights = torch.ones(3 * SIZE) if batch.weights is None else batch.weights
        for member in range(3):
            rows = slice(member * SIZE, (member + 1) * SIZE)
            seen[member] += indices_of(batch.inputs[rows][weights[rows] > 0])
    count = COUNT if last_batch == "pad" else COUNT // SIZE * SIZE
    assert all(len(set(order)) == len(order) == count for order in seen)
    assert len(set(map(tuple, seen))) == 3
    later = list(source.epoch(0, 0, 3))
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(later, batches[3:], strict=True))


@pytest.mark.parametrize(
    ("data", "feed", "message"),
    [
        ((X, Y), "own", "a batch of all examples is the same for all members"),
        (loader(shuffle=False), "own", "the sampler's order is fixed"),
        (loader(), "bootstrap", "as a bootstrap needs"),
        (Again(), "own", "a Again has one order, not one for each of 2 members"),
    ],
)
def test_data_with_only_one_order_are_refused(data: Any, feed: str, message: str) -> None:
    model = Model(ensemble(nn.Linear(2, 1), 2, "normal"), Gaussian(10.0))
    options = {"num_data": COUNT, "steps_per_epoch": 6} if isinstance(data, Again) else {}
    with pytest.raises(InputError, match=message):
        Training(fed(MAP(), feed), lambda: model, batches_of(data, **options), 1)


@pytest.mark.parametrize("members", [1, 2])
def test_networks_of_a_deep_ensemble_have_their_own_data(members: int) -> None:
    """With single networks, the first one sees the usual order and equals, bit for bit, the one with feed="tile"."""

    def trained(algorithm: Inference[Any]) -> list[torch.Tensor]:
        training = Training(algorithm, builder(members), batches_of(digits(), 48), 2)
        for _ in training.steps():
            pass
        return list(training.predict(digits().test)[0])

    alike, own, weighted = (
        trained(DeepEnsemble(of=MAP(feed=feed), networks=2)) for feed in ("tile", "own", "bootstrap")
    )
    if members == 1:
        assert torch.equal(alike[0], own[0])
    assert all(not torch.equal(*pair) for pair in zip(alike[members:], own[members:], strict=True))
    assert all(not torch.equal(*pair) for pair in zip(own, weighted, strict=True))
    source = batches_of(digits(), 48).fed(Feeding(2 * members, is_own=True))
    state = DeepEnsemble(of=MAP(feed="own"), networks=2).init(builder(members), 240, 10)
    batch = next(source.epoch(0, 0, 0))
    parts = DeepEnsemble(of=MAP(feed="own"), networks=2).batches(state, batch)
    assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
    assert [len(part.targets) for part in parts] == [48 * members] * 2
