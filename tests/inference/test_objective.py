"""The objective: weights of examples and custom objectives, for every gradient-based method."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, form_builder
from states import leaves
from test_seam import METHODS, batch_of
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import IVON, MAP, SVI, DeepEnsemble, Inference
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.drivers import step
from bayes_share.inference.step.objective import Evaluate, NegativeLogLikelihood, Terms
from bayes_share.models.likelihoods import Categorical
from bayes_share.models.model import Model
from bayes_share.sharing.members_interface import Feed
from bayes_share.tensors.seeding import seeded

THROUGH_PYRO = SVI(guide="low-rank", rank=2, learning_rate=1e-2)


def begun(algorithm: Inference[Any], form: str = "ensemble") -> Any:
    with seeded("init"):
        return algorithm.init(form_builder(CASES["map"], FORMS[form], norm="none", dtype=torch.float64), 240, 10)


def assert_same(one: Any, other: Any) -> None:
    expected, found = (dict(leaves(state.state_dict())) for state in (one, other))
    for path, value in expected.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(found[path], value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", [*METHODS, "pyro"])
def test_a_weight_of_2_equals_repeating_the_example(name: str, parts: int) -> None:
    """Weights 2, 1, 1, 0 equal a batch that repeats the first of four examples and omits the last."""
    algorithm = THROUGH_PYRO if name == "pyro" else METHODS[name]
    if isinstance(algorithm, DeepEnsemble):
        algorithm = replace(algorithm, of=replace(algorithm.of, accumulate=parts))
    else:
        algorithm = replace(algorithm, accumulate=parts)
    rows = torch.arange(48).view(-1, 4)
    weights = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64).repeat(12)
    weighted, repeated = begun(algorithm), begun(algorithm)
    for number in range(2):
        batch = batch_of(rows.flatten())
        with seeded("step", number):
            one = step(algorithm, weighted, Batch(batch.inputs, batch.targets, weights))
        with seeded("step", number):
            other = step(algorithm, repeated, batch_of(rows[:, [0, 0, 1, 2]].flatten()))
        for term in ("loss", "log_lik", "accuracy"):
            rounding = 1e-6 if term == "accuracy" else 1e-9  # the accuracy is a mean in float32
            torch.testing.assert_close(getattr(one, term), getattr(other, term), rtol=rounding, atol=1e-12)
    assert_same(repeated, weighted)


@pytest.mark.parametrize("algorithm", [MAP(), IVON(), SVI(), SVI(guide="low-rank", rank=2, initial_scale=1e-9)])
def test_the_accuracy_ignores_masked_targets_with_any_accumulation(algorithm: Inference[Any]) -> None:
    """6 of 12 targets are known, and none of them is in the last third."""
    targets = torch.tensor([0, 1, 2, 0, 1, -1, -1, 2, -1, -1, -1, -1])
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for parts in (1, 2, 3):
        with seeded("init"):
            model = Model(nn.Linear(4, 3), Categorical(ignore_index=-1))
            cut = replace(algorithm, accumulate=parts)
            state = cut.init(lambda model=model: model, 12, 3)
        with seeded("step"):
            found.append(float(step(cut, state, Batch(x, targets)).accuracy))
    assert found == pytest.approx([found[0]] * 3, rel=1e-6)
    assert found[0] * 6 == pytest.approx(round(found[0] * 6), abs=1e-5)


def test_feed_split_splits_the_weights_with_the_batch() -> None:
    algorithm = MAP(feed="split")
    rows = torch.arange(48).view(-1, 4)
    weighted, repeated = begun(algorithm), begun(algorithm)
    batch = batch_of(rows.flatten())
    weights = torch.tensor([2.0, 1.0, 1.0, 0.0], dtype=torch.float64).repeat(12)
    step(algorithm, weighted, Batch(batch.inputs, batch.targets, weights))
    step(algorithm, repeated, batch_of(rows[:, [0, 0, 1, 2]].flatten()))
    assert_same(repeated, weighted)


@dataclass(frozen=True)
class Scaled:
    """The usual objective times a constant."""

    part: float = 0.5

    def terms(self, evaluate: Evaluate, model: Model, batch: Batch, feed: Feed) -> Terms:
        usual = NegativeLogLikelihood().terms(evaluate, model, batch, feed)
        return Terms(self.part * usual.loss, usual.log_lik, usual.accuracy)


@pytest.mark.parametrize("name", METHODS)
def test_a_custom_objective_replaces_the_loss_of_a_step(name: str) -> None:
    """The step reports the scaled loss and the same log-likelihood."""
    algorithm: Any = METHODS[name]
    algorithm = getattr(algorithm, "of", algorithm)
    usual, scaled = begun(algorithm), begun(replace(algorithm, objective=Scaled()))
    with seeded("step"):
        one = step(algorithm, usual, batch_of(torch.arange(48)))
    with seeded("step"):
        other = step(replace(algorithm, objective=Scaled()), scaled, batch_of(torch.arange(48)))
    assert torch.equal(one.log_lik, other.log_lik)
    assert not torch.equal(one.loss, other.loss)
    torch.testing.assert_close(one.loss - other.loss, -0.5 * one.log_lik)


def test_half_the_loss_halves_a_step_of_sgd() -> None:
    algorithm = MAP(weight_decay=0.0, momentum=0.0, schedule="constant")
    before = dict(begun(algorithm).model.named_parameters())
    usual, scaled = begun(algorithm), begun(algorithm)
    step(algorithm, usual, batch_of(torch.arange(48)))
    step(replace(algorithm, objective=Scaled()), scaled, batch_of(torch.arange(48)))
    for name, start in before.items():
        moved, half = (state.model.get_parameter(name) - start for state in (usual, scaled))
        torch.testing.assert_close(half, moved / 2, rtol=1e-9, atol=1e-14)


def test_svi_through_pyro_refuses_a_custom_objective() -> None:
    with pytest.raises(InputError, match="Scaled requires independent guides"):
        begun(replace(THROUGH_PYRO, objective=Scaled()))
