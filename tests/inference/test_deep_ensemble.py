"""A deep ensemble is its networks, each trained as if it were alone."""

from typing import Any

import pytest
import torch
from algorithms import SIZES, builder, digits, trained
from states import differences

from bayes_share.errors import InputError
from bayes_share.inference import (
    MAP,
    SVI,
    DeepEnsemble,
    Training,
    batches_of,
    fit,
    fit_tensors,
    posterior_samples,
    predict,
    predict_with_features,
)
from bayes_share.models.model import Model
from bayes_share.seeding import seeded

NETWORKS = 3


def initial(size: int) -> list[Model]:
    """The networks as the training starts them: one after the other from the key of initialisation."""
    with seeded(5, "init"):
        return [builder(size)() for _ in range(NETWORKS)]


@pytest.mark.parametrize("size", SIZES)
def test_its_networks_are_what_they_would_be_alone(size: int) -> None:
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


def test_its_networks_start_apart() -> None:
    state = DeepEnsemble(networks=2).init(builder(), 240, 10)
    one, other = [network.model.network.layers[1].weight for network in state.networks]
    assert (one - other).abs().max() > 0.1


def test_one_model_is_not_enough_for_several_networks() -> None:
    model, data = builder()(), digits()
    with pytest.raises(InputError, match="hand in a function that builds the model"):
        fit(DeepEnsemble(networks=2), model, data, epochs=1, batch_size=48, progress=False)
    state = fit(DeepEnsemble(networks=1), model, data, epochs=1, batch_size=48, progress=False)
    alone = fit(MAP(), model, data, epochs=1, batch_size=48, progress=False)
    assert differences(state.networks[0].state_dict(), alone.state_dict()) == []
    x = data.normalise(data.test.images)
    assert torch.equal(predict(DeepEnsemble(networks=1), state, x), predict(MAP(), alone, x))


@pytest.mark.parametrize("networks", [0, -1])
def test_there_is_at_least_one_network(networks: int) -> None:
    with pytest.raises(InputError, match="from 1 to 10,000 networks"):
        DeepEnsemble(networks=networks)


@pytest.mark.parametrize(
    "take", [predict, predict_with_features, lambda algorithm, state, x: posterior_samples(algorithm, state)]
)
def test_states_of_another_algorithm_are_refused_in_deep_ensembles_too(take: Any) -> None:
    x, y = torch.randn(6, 4), torch.arange(6) % 2
    single, several = (
        fit_tensors(algorithm, lambda: Model(torch.nn.Linear(4, 2)), x, y, 1)
        for algorithm in (MAP(), DeepEnsemble(MAP(), 2))
    )
    for algorithm, state in ((SVI(), single), (DeepEnsemble(SVI(), 2), several)):
        with pytest.raises(InputError, match="this state is a MAPState, and SVI needs a SVIState"):
            take(algorithm, state, x)
    with pytest.raises(InputError, match="not from a Linear: call a network itself"):
        take(SVI(), torch.nn.Linear(4, 2), x)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("take", [predict, predict_with_features])
@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_samples": 0}, "at least 1 draw, not 0"), ({"batch_size": 0}, "at least 1 input at a time, not 0")],
)
def test_predictions_of_nothing_are_refused(take: Any, options: dict[str, int], message: str) -> None:
    x = torch.randn(6, 4)
    state = fit_tensors(MAP(), Model(torch.nn.Linear(4, 2)), x, torch.arange(6) % 2, 1)
    with pytest.raises(InputError, match=message):
        take(MAP(), state, x, **options)
    with pytest.raises(InputError, match="inputs must be a tensor, not ndarray"):
        take(MAP(), state, x.numpy())
