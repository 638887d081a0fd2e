"""A deep ensemble trains each of its networks as if it were alone."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from algorithms import SIZES, builder, digits, trained
from states import differences
from torch import nn

from bayes_share.errors import InputError
from bayes_share.inference import (
    MAP,
    NUTS,
    SGHMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Inference,
    LastLayerLaplace,
    MCDropout,
    Training,
    batches_of,
    fit,
    fit_tensors,
    posterior_samples,
    predict,
    predict_with_features,
)
from bayes_share.inference.algorithm import Batch, Build, Composed, Forward
from bayes_share.models.model import Model
from bayes_share.tensors.seeding import seeded

NETWORKS = 3


def initial(size: int) -> list[Model]:
    """Return the networks as the training initialises them: one after the other with the key "init"."""
    with seeded(5, "init"):
        return [builder(size)() for _ in range(NETWORKS)]


@pytest.mark.parametrize("size", SIZES)
def test_each_network_equals_one_that_is_trained_alone(size: int) -> None:
    data = digits("crop")
    together = trained(
        Training(DeepEnsemble(of=MAP(), networks=NETWORKS), builder(size), batches_of(data, 48), 2, seed=5)
    )
    logits = together.predict(data.test)
    assert logits.shape == (1, NETWORKS * size, 50, 10)
    alone = [trained(Training(MAP(), lambda m=m: m, batches_of(data, 48), 2, seed=5)) for m in initial(size)]
    for number, run in enumerate(alone):
        assert differences(together.state.networks[number].state_dict(), run.state.state_dict()) == []
        members = logits[:, number * size : (number + 1) * size]
        assert torch.equal(members, run.predict(data.test))
    for name in ("loss", "train_accuracy"):
        expected = sum(run.history[-1][name] for run in alone) / NETWORKS
        assert together.history[-1][name] == pytest.approx(expected, rel=1e-6)
    assert together.state.num_parameters == sum(run.state.num_parameters for run in alone)


def test_networks_start_with_different_weights() -> None:
    state = DeepEnsemble(networks=2).init(builder(), 240, 10)
    one, other = [network.model.network.layers[1].weight for network in state.networks]
    assert (one - other).abs().max() > 0.1


def test_several_networks_require_a_function_that_builds_the_model() -> None:
    model, data = builder()(), digits()
    with pytest.raises(InputError, match="pass a function that builds the model"):
        fit(DeepEnsemble(networks=2), model, data, epochs=1, batch_size=48, progress=False)
    state = fit(DeepEnsemble(networks=1), model, data, epochs=1, batch_size=48, progress=False)
    alone = fit(MAP(), model, data, epochs=1, batch_size=48, progress=False)
    assert differences(state.networks[0].state_dict(), alone.state_dict()) == []
    x = data.normalise(data.test.images)
    assert torch.equal(predict(DeepEnsemble(networks=1), state, x), predict(MAP(), alone, x))


@pytest.mark.parametrize("networks", [0, -1])
def test_fewer_than_one_network_is_refused(networks: int) -> None:
    with pytest.raises(InputError, match="from 1 to 10,000 networks"):
        DeepEnsemble(networks=networks)


@pytest.mark.parametrize(
    "take", [predict, predict_with_features, lambda algorithm, state, x: posterior_samples(algorithm, state)]
)
def test_states_of_another_algorithm_are_refused(take: Any) -> None:
    x, y = torch.randn(6, 4), torch.arange(6) % 2
    single, several = (
        fit_tensors(algorithm, lambda: Model(torch.nn.Linear(4, 2)), x, y, 1)
        for algorithm in (MAP(), DeepEnsemble(MAP(), 2))
    )
    for algorithm, state in ((SVI(), single), (DeepEnsemble(SVI(), 2), several)):
        with pytest.raises(InputError, match="this state is of type MAPState, and SVI requires SVIState"):
            take(algorithm, state, x)
    with pytest.raises(InputError, match="not Linear: call a network directly"):
        take(SVI(), torch.nn.Linear(4, 2), x)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("take", [predict, predict_with_features])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "at least 1 draw, not 0"),
        ({"batch_size": 0}, "batch size of a prediction must be at least 1, not 0"),
    ],
)
def test_predict_refuses_zero_draws_a_zero_batch_size_and_arrays(
    take: Any, options: dict[str, int], message: str
) -> None:
    x = torch.randn(6, 4)
    state = fit_tensors(MAP(), Model(torch.nn.Linear(4, 2)), x, torch.arange(6) % 2, 1)
    with pytest.raises(InputError, match=message):
        take(MAP(), state, x, **options)
    with pytest.raises(InputError, match="inputs must be a tensor, not ndarray"):
        take(MAP(), state, x.numpy())


@pytest.mark.parametrize("algorithm", [DeepEnsemble(), DeepEnsemble(of=SVI()), NUTS(chains=2)])
@pytest.mark.parametrize("what", ["model", "network", "layer"])
def test_a_builder_that_reuses_parameters_is_refused(algorithm: Inference[Any], what: str) -> None:
    layer = nn.Linear(4, 10)
    network = nn.Sequential(layer)
    model = Model(network)
    build = {"model": lambda: model, "network": lambda: Model(network), "layer": lambda: Model(nn.Sequential(layer))}
    with pytest.raises(InputError, match="it must build a new network each time"):
        algorithm.init(build[what], 8, 3)


def test_networks_may_share_a_frozen_part() -> None:
    backbone = nn.Linear(4, 9).requires_grad_(False)
    state = DeepEnsemble(networks=2).init(lambda: Model(nn.Sequential(backbone, nn.Linear(9, 10))), 8, 3)
    assert state.networks[0].model.network[0] is state.networks[1].model.network[0]


@pytest.mark.parametrize(("of", "tempering"), [(SGHMC(keep=6, temperature=0.5), "temperature 0.5"), (NUTS(), None)])
def test_a_deep_ensemble_of_chains_is_a_chain(of: Inference[Any], tempering: str | None) -> None:
    algorithm = DeepEnsemble(of=of, networks=2)
    assert algorithm.is_chain
    assert algorithm.tempering(240) == tempering
    assert algorithm.not_drawn() is not None
    x, y = digits().train.images.float().flatten(1)[:8, :4], digits().train.labels[:8]
    state = fit_tensors(algorithm, lambda: Model(torch.nn.Linear(4, 10)), x / 255, y, 9)
    assert state.num_kept == state.networks[1].num_kept > 3


@dataclass(frozen=True, init=False)
class Watched(MAP):
    """Records the calls of its hooks."""

    calls: Any = field(default_factory=list)

    def check(self, state: Any, batch: Batch) -> None:
        self.calls.append("check")

    def after_step(self, state: Any, steps: int) -> None:
        self.calls.append(steps)

    def finish(self, state: Any, batches: Any) -> None:
        self.calls.append("finish")


@dataclass(frozen=True)
class Around(Composed[Any]):
    """A minimal composed algorithm with one training."""

    of: Watched

    def init(self, build: Build, num_data: int, num_steps: int) -> Any:
        return self.of.init(build, num_data, num_steps)

    def trainings(self, state: Any) -> list[Any]:
        return [(self.of, state)]

    def draw(self, state: Any, sample: int) -> Forward:
        return self.of.draw(state, sample)


@pytest.mark.parametrize(
    "around",
    [
        Around,
        lambda of: DeepEnsemble(of=of, networks=1),
        lambda of: SWAG(point=of),
        lambda of: MCDropout(point=of),
        lambda of: LastLayerLaplace(point=of),
        lambda of: DeepEnsemble(of=SWAG(point=of), networks=1),
    ],
)
def test_composed_algorithms_call_check_after_step_and_finish_of_the_inner_one(around: Any) -> None:
    watched = Watched()
    x, y = torch.randn(8, 4), torch.arange(8)
    fit_tensors(around(watched), lambda: Model(torch.nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 10))), x, y, 2)
    assert watched.calls == ["check", 1, 2, "finish"]
