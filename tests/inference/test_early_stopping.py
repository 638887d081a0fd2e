"""Early stopping on validation data: the epoch where it stops, the returned state, and resuming."""

import itertools
import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from algorithms import builder, digits
from states import differences, through_bytes
from torch.utils.data import DataLoader, TensorDataset
from toy_data import KINDS, SIZE, X, Y, line, trained

from bayes_share.errors import InputError
from bayes_share.inference import MAP, SVI, DeepEnsemble, Training, batches_of, fit, fit_tensors, pointwise_log_lik
from bayes_share.inference.loop.stopping import EarlyStopping
from bayes_share.models.model import Model

FAST = MAP(learning_rate=0.5, momentum=0.0, schedule="constant")
HELD_OUT = (X[::3] + 0.1, Y[::3] - 5.0)


def build() -> Model:
    torch.manual_seed(2)
    return line()


def training(algorithm: Any = FAST, patience: int | None = 2, epochs: int = 40, **options: Any) -> Training:
    return Training(
        algorithm,
        build,
        batches_of((X, Y), SIZE),
        epochs,
        seed=1,
        validation=batches_of(HELD_OUT, 5),
        patience=patience,
        **options,
    )


def explicit_loop(algorithm: Any, patience: int, epochs: int) -> tuple[int, int, Any, list[float]]:
    """Return the number of epochs of an explicit loop, the best epoch, its state, and the validation NLLs."""
    run = training(algorithm, None, epochs)
    best, at, state, nlls = math.inf, -1, None, []
    for info in run.steps():
        del info
        if run.step % 5:
            continue
        log_liks = pointwise_log_lik(algorithm, run.state, *HELD_OUT).double()
        nlls.append(-(log_liks.flatten(0, 1).logsumexp(0) - math.log(log_liks[:, :, 0].numel())).mean().item())
        epoch = len(nlls) - 1
        if nlls[-1] < best:
            best, at, state = nlls[-1], epoch, deepcopy(run.state.state_dict())
        elif epoch - at >= patience:
            break
    return len(nlls), at, state, nlls


@pytest.mark.parametrize("algorithm", [FAST, DeepEnsemble(FAST, 2)], ids=["map", "deep ensemble"])
@pytest.mark.parametrize("patience", [1, 2, 4])
def test_the_stopping_epoch_and_state_equal_those_of_an_explicit_loop(algorithm: Any, patience: int) -> None:
    epochs, best, state, nlls = explicit_loop(algorithm, patience, 40)
    assert 1 < epochs < 40
    run = trained(training(algorithm, patience))
    assert len(run.history) == epochs
    assert [record["validation_nll"] for record in run.history] == pytest.approx(nlls, rel=1e-6)
    assert run.is_finished
    assert run.step == 5 * epochs
    assert differences(run.state.state_dict(), state) == []
    assert best == epochs - 1 - patience


def test_the_best_epochs_state_is_returned_even_if_training_never_stops_early() -> None:
    epochs, best, state, _ = explicit_loop(FAST, 100, 12)
    assert (epochs, best < 11) == (12, True)
    assert differences(trained(training(patience=100, epochs=12)).state.state_dict(), state) == []


def test_without_patience_the_last_state_is_returned() -> None:
    run = trained(training(patience=None, epochs=12))
    assert len(run.history) == 12
    assert "stopping" not in run.state_dict()
    assert differences(run.state.state_dict(), trained(training(patience=100, epochs=12)).state.state_dict())


def test_a_resumed_training_stops_early_at_the_same_step() -> None:
    expected = trained(training(patience=3))
    assert expected.step < 200
    for at in (1, 5, 7, expected.step - 6, expected.step - 5, expected.step - 1, expected.step):
        run = training(patience=3)
        content = through_bytes(trained(run, at).state_dict())
        run = training(patience=3)
        run.load_state_dict(content)
        trained(run)
        assert differences(run.state_dict(), expected.state_dict()) == [], at
    again = training(patience=3)
    again.load_state_dict(through_bytes(expected.state_dict()))
    assert list(again.steps()) == []


def test_the_best_state_is_a_copy() -> None:
    stopping = EarlyStopping(2)
    weight = torch.zeros(1)
    stopping.add(1.0, lambda: {"weight": weight})
    weight += 1
    stopping.add(2.0, lambda: {"weight": weight})
    assert stopping.best == {"weight": torch.zeros(1)}
    stopping.add(math.nan, lambda: {"weight": weight})
    assert stopping.is_over


def test_image_data_stop_early_on_their_own_validation_split() -> None:
    history: list[Any] = []
    algorithm = MAP(learning_rate=3.0, momentum=0.0, schedule="constant", clip_norm=1.0)
    fit(algorithm, builder(), digits(), 60, 48, progress=False, patience=1, report=history.append)
    nlls = [record["validation_nll"] for record in history]
    assert len(nlls) < 60
    assert nlls[-1] >= min(nlls[:-1])
    assert all(one > other for one, other in itertools.pairwise(nlls[:-1]))


@pytest.mark.parametrize(
    "validation",
    [(X, Y), DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True), [(X[:9], Y[:9]), (X[9:], Y[9:])]],
    ids=["tensors", "loader", "list"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_training_data_accepts_any_kind_of_validation_data(kind: str, validation: Any) -> None:
    make, told = KINDS[kind]
    history: list[Any] = []
    algorithm = SVI(learning_rate=1e-3)
    state = fit(algorithm, build, make(), 2, progress=False, validation=validation, report=history.append, **told)
    mixture = pointwise_log_lik(algorithm, state, X, Y).double().flatten(0, 1).logsumexp(0)
    assert history[-1]["validation_nll"] == pytest.approx(-mixture.mean().item(), rel=1e-6)
    assert set(history[-1]) == {"epoch", "loss", "train_nll", "validation_nll", "learning_rate", "seconds"}


def test_the_history_has_accuracies_and_validation_scores_only_if_validated() -> None:
    history: list[Any] = []
    labels = (X[:, 0] > 10).long()
    model = Model(torch.nn.Linear(2, 2))
    fit_tensors(MAP(), model, X, labels, 7, 5, validation=(X, labels), report=history.append)
    assert [record["epoch"] for record in history] == [0]
    assert list(history[0])[:6] == [
        "epoch", "loss", "train_accuracy", "train_nll", "validation_accuracy", "validation_nll",
    ]  # fmt: skip
    history.clear()
    fit_tensors(MAP(), model, X, labels, 5, report=history.append)
    assert [record["epoch"] for record in history] == [0, 1, 2, 3, 4]
    assert all(0 <= record["train_accuracy"] <= 1 and "validation_nll" not in record for record in history)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 2}, "patience requires validation data"),
        ({"patience": 0, "validation": (X, Y)}, "patience must be an integer number of epochs, at least 1, not 0"),
        ({"validation": (X, Y[:3])}, "validation data: x has 22 examples and y has 3"),
        ({"validation": (X, Y * torch.nan)}, "validation data: 22 of 22 targets contain NaN"),
        ({"validation": iter([(X, Y)])}, "validation data: a list_iterator can be iterated over only once"),
    ],
)
def test_invalid_patience_or_validation_data_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(MAP(), build, (X, Y), 1, SIZE, progress=False, **options)
