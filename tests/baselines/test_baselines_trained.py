"""Every algorithm on packed ensembles, Masksembles and MIMO: training, resuming and prediction."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.baselines import masked, mimo, packed
from bayes_share.errors import InputError
from bayes_share.inference import (
    ALGORITHMS,
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SGLD,
    SVI,
    SWAG,
    DeepEnsemble,
    Distill,
    Inference,
    LastLayerLaplace,
    MCDropout,
    Training,
    batches_of,
    fit_tensors,
    predict,
)
from bayes_share.inference.methods.distill.teachers import teachers_of
from bayes_share.models.model import Model

G = torch.Generator().manual_seed(0)
X = torch.randn(48, 8, generator=G)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()

BASELINES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "packed": partial(packed, ensemble_size=2, alpha=1.0, example=X[:2]),
    "masked": partial(masked, ensemble_size=2, example=X[:2]),
    "mimo": partial(mimo, ensemble_size=2, example=X[:2]),
}
TEACHER = nn.Linear(8, 3)
METHODS: dict[str, Callable[..., Inference[Any]]] = {
    "map": MAP,
    "svi": SVI,
    "ivon": IVON,
    "deep-ensemble": lambda **options: DeepEnsemble(of=MAP(**options), networks=2),
    "distill": lambda **options: Distill(of=MAP(**options)),
    "mc-dropout": MCDropout,
    "swag": SWAG,
    "laplace": LastLayerLaplace,
    "sghmc": SGHMC,
    "sgld": SGLD,
    "nuts": lambda **options: NUTS(max_tree_depth=3),
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))


def build(baseline: str) -> Callable[[], Model]:
    return lambda: Model(BASELINES[baseline](net()))


REFUSED = {("mimo", "laplace"): "does not support MIMO", ("mimo", "nuts"): "does not support MIMO"}


def test_all_algorithms_are_covered() -> None:
    assert METHODS.keys() == ALGORITHMS.keys()


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("method", METHODS)
def test_every_algorithm_trains_and_predicts(baseline: str, method: str) -> None:
    algorithm = METHODS[method](**({"feed": "own"} if baseline == "mimo" else {}))
    teacher = {"teacher": [TEACHER]} if method == "distill" else {}
    size = None if method == "nuts" else 16
    if (baseline, method) in REFUSED:
        with pytest.raises(InputError, match=REFUSED[baseline, method]):
            fit_tensors(algorithm, build(baseline), X, Y, num_steps=8, batch_size=size, **teacher)
        return
    state = fit_tensors(algorithm, build(baseline), X, Y, num_steps=8, batch_size=size, **teacher)
    found = predict(algorithm, state, X[:5], num_samples=2)
    assert found.shape == (2, 4 if method == "deep-ensemble" else 2, 5, 3)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(predict(algorithm, state, X[:5], num_samples=2), found, rtol=0, atol=0)


@pytest.mark.parametrize("baseline", BASELINES)
def test_training_reduces_the_loss(baseline: str) -> None:
    """The loss decreases from chance level (about 1.1) to far below."""
    algorithm = MAP(feed="own", learning_rate=0.05)
    state = fit_tensors(algorithm, build(baseline), X, Y, num_steps=300, batch_size=16)
    probs = predict(algorithm, state, X).softmax(-1).mean((0, 1))
    assert float(-probs[range(48), Y].log().mean()) < 0.7
    assert float((predict(algorithm, state, X)[0, 0] - predict(algorithm, state, X)[0, 1]).abs().max()) > 0.1


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_resumed_training_equals_an_uninterrupted_one(baseline: str, tmp_path: Any) -> None:
    def training(steps: int) -> Training:
        return Training(MAP(feed="own"), build(baseline), batches_of((X, Y), 16), num_steps=steps, seed=3)

    whole, first, second = training(9), training(9), training(9)
    for _ in whole.steps():
        pass
    steps = first.steps()
    for _ in range(4):
        next(steps)
    second.load_state_dict(first.state_dict())
    for _ in second.steps():
        pass
    torch.testing.assert_close(second.predict(X[:5]), whole.predict(X[:5]), rtol=0, atol=0)


def test_training_mimo_on_the_same_image_in_all_inputs_raises() -> None:
    for algorithm in (MAP(), IVON(), SVI(), DeepEnsemble(of=MAP()), SWAG()):
        with pytest.raises(InputError, match="set feed to own or split"):
            fit_tensors(algorithm, build("mimo"), X, Y, num_steps=2, batch_size=16)


def test_mimo_members_are_trained_on_different_images() -> None:
    """Each image contributes to the loss of the member that gets it: the gradient matches the explicit loss."""
    model = Model(BASELINES["mimo"](net().eval()))
    x, y = X[:8], Y[:8]

    def loss(rows: Tensor, targets: Tensor) -> Tensor:
        logits = model.network.network(rows).reshape(4, 2, 3)  # type: ignore[operator, union-attr]
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    expected = torch.autograd.grad(
        loss(torch.cat([x[:4], x[4:]], 1), torch.stack([y[:4], y[4:]], 1)), list(model.network.parameters())
    )
    outputs, targets = model(x, "split"), model.targets(y, "split")
    found = torch.autograd.grad(
        nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten()), list(model.network.parameters())
    )
    torch.testing.assert_close(found, expected)


def test_keeping_members_of_a_mimo_network_raises() -> None:
    with pytest.raises(InputError, match="members can only be kept from an Ensemble"):
        fit_tensors(MAP(feed="own"), build("mimo"), X, Y, 4, 16, validation=(X, Y), keep=1)


def test_each_member_of_a_mimo_network_is_a_teacher() -> None:
    teacher = BASELINES["mimo"](net()).eval()
    found = teachers_of(teacher)
    assert len(found) == 2
    torch.testing.assert_close(torch.stack([one(X[:5])[0] for one in found]), teacher(X[:5]))
