"""Examples whose target is `ignore_index` are left out of accuracies and NLLs during training and afterwards."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayes_share.errors import InputError
from bayes_share.inference import IVON, MAP, SVI, Inference, Training, batches_of, fit, predict
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.drivers import step
from bayes_share.models.likelihoods import Categorical
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return ensemble(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, classes)), 2, init="normal")


def some_ignored(value: int) -> Tensor:
    """Return the labels with two thirds ignored, and all of the last 30."""
    return torch.where((torch.arange(120) % 3 == 0) & (torch.arange(120) < 90), LABELS, value)


@pytest.mark.parametrize("value", [-1, -100, 7])
@pytest.mark.parametrize("is_loader", [False, True])
def test_validation_scores_are_those_of_the_known_targets(value: int, is_loader: bool) -> None:
    """-1 would be the last class as an index, and the other values no class."""
    targets = some_ignored(value)
    known = targets != value
    pairs = [(X, targets), (X[known], targets[known])]
    histories: list[list[Any]] = [[], []]
    for pair, history in zip(pairs, histories, strict=True):
        validation = DataLoader(TensorDataset(*pair), batch_size=30) if is_loader else pair
        model = Model(network(), Categorical(ignore_index=value)).double()
        state = fit(MAP(), model, (X, LABELS), epochs=2, progress=False, validation=validation, report=history.append)
    log_probs = mixture_log_probs(predict(MAP(), state, X[known]))
    expected = -log_probs[torch.arange(int(known.sum())), targets[known]].mean().item()
    for found, other in zip(*histories, strict=True):
        for name in ("validation_accuracy", "validation_nll", "validation_disagreement", "validation_kl"):
            assert found[name] == pytest.approx(other[name], rel=1e-9), name
    assert histories[0][-1]["validation_nll"] == pytest.approx(expected, rel=1e-9)


def test_the_validation_nll_leaves_out_examples_without_a_known_position() -> None:
    x = torch.randn(40, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = (x[..., 0] > 0).long()
    targets[::2] = -1
    targets[1::4, 2:] = -1
    model = Model(nn.Linear(4, 2), Categorical(ignore_index=-1)).double()
    scores: list[Any] = []
    state = fit(MAP(), model, (x, targets), epochs=1, progress=False, validation=(x, targets), report=scores.append)
    log_probs = state.model.network(x).log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    expected = -log_probs.masked_fill(targets < 0, 0.0).sum(1)[1::2].mean().item()
    assert scores[0]["validation_nll"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("is_loader", [False, True])
def test_validation_targets_must_not_all_be_ignored(is_loader: bool) -> None:
    pair = (X, torch.full((120,), -1))
    validation = DataLoader(TensorDataset(*pair), batch_size=30) if is_loader else pair
    model = Model(network(), Categorical(ignore_index=-1)).double()
    with pytest.raises(InputError, match=r"^validation data: every target is the ignore_index -1: there are no"):
        fit(MAP(), model, (X, LABELS), epochs=1, progress=False, validation=validation)


QUIET = IVON(learning_rate=1e-12, hess_init=1e12, factor_hess_init=1e12)


@pytest.mark.parametrize("algorithm", [MAP(learning_rate=1e-12), SVI(learning_rate=1e-12), QUIET])
def test_training_scores_are_those_of_the_known_targets(algorithm: Inference[Any]) -> None:
    """The batches have different numbers of known targets. The network stays at its initial values."""
    targets = some_ignored(-1)
    known = targets >= 0
    order = torch.argsort(known.long(), stable=True)
    loader = DataLoader(TensorDataset(X[order], targets[order]), batch_size=24)
    model = Model(network(), Categorical(ignore_index=-1)).double()
    training = Training(algorithm, lambda: model, batches_of(loader), 1)
    for _ in training.steps():
        pass
    log_probs = model.network(X[known]).log_softmax(-1)
    correct = (log_probs.argmax(-1) == targets[known]).double().mean().item()
    nll = -log_probs.gather(-1, targets[known].expand(2, -1)[..., None]).mean().item()
    noise = 0.05 if isinstance(algorithm, SVI) else 1e-5
    assert training.history[0]["train_accuracy"] == pytest.approx(correct, rel=noise)
    assert training.history[0]["train_nll"] == pytest.approx(nll, rel=noise)


def test_diagnostics_of_half_batches_average_to_those_of_the_batch() -> None:
    """As over several processes: the first half has 2 known targets, the second half 5 or none."""
    targets = torch.tensor([0, 1, -1, -1, -1, -1, 2, 2, 1, 0, 2, -1])
    for wanted in (targets, targets.where(torch.arange(12) < 6, -1)):
        infos = []
        for rows in (slice(0, 12), slice(0, 6), slice(6, 12)):
            state = MAP().init(lambda: Model(network(), Categorical(ignore_index=-1)).double(), 12, 1)
            infos.append(step(MAP(), state, Batch(X[rows], wanted[rows])))
        whole, *halves = infos
        correct, known = (torch.stack([getattr(half, name) for half in halves]).mean() for name in ("correct", "known"))
        torch.testing.assert_close(correct / known, whole.accuracy)
        assert float(known) * 12 == pytest.approx(int((wanted >= 0).sum()))
