"""The history reports how much members differ, and a training that ends with near copies logs it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations, permutations, product
from typing import Any

import pytest
import torch
from algorithms import builder, digits, trained
from torch import nn
from toy_data import X, Y

from bayes_share.baselines import masked, packed
from bayes_share.data import Data
from bayes_share.inference import MAP, DeepEnsemble, Inference, Training, batches_of
from bayes_share.inference.loop.near_copies import Remedies, near_copies
from bayes_share.inference.loop.verdicts import verdicts
from bayes_share.layers.factors import FactorInit
from bayes_share.models.likelihoods import Categorical, Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble


def test_the_history_has_the_pairwise_disagreement_and_kl_of_the_members() -> None:
    algorithm = DeepEnsemble(MAP(learning_rate=0.01), 3)
    training = trained(Training(algorithm, builder(), batches_of(digits(), 48), 1))
    probs = training.predict(training.data.validation)[0].double().softmax(-1)
    votes = probs.argmax(-1)
    apart = [float((votes[i] != votes[j]).double().mean()) for i, j in combinations(range(3), 2)]
    kl = [float((probs[i] * (probs[i] / probs[j]).log()).sum(-1).mean()) for i, j in permutations(range(3), 2)]
    (line,) = training.history
    assert line["validation_disagreement"] == pytest.approx(sum(apart) / 3, rel=1e-9)
    assert line["validation_kl"] == pytest.approx(sum(kl) / 6, rel=1e-6)
    assert 0 < line["validation_disagreement"] < 1


@pytest.mark.parametrize("size", [1, 2])
def test_single_networks_and_regression_have_no_disagreement_in_the_history(size: int) -> None:
    net = nn.Linear(2, 1)
    model = Model(ensemble(net, 2, "normal"), Gaussian(10.0)) if size == 2 else Model(net, Gaussian(10.0))
    training = Training(
        MAP(learning_rate=1e-4), lambda: model, batches_of((X, Y), 11), 1, validation=batches_of((X, Y))
    )
    assert not {name for name in trained(training).history[0] if "kl" in name or "disagreement" in name}
    of_classes = trained(Training(MAP(), builder(1), batches_of(digits(), 48), 1))
    assert "validation_kl" not in of_classes.history[0]


NOTHING = Remedies()


def history_line(error: float, disagreement: float, in_training: float = 0.01) -> dict[str, Any]:
    return {
        "train_accuracy": 1 - in_training,
        "validation_accuracy": 1 - error,
        "validation_disagreement": disagreement,
    }


@pytest.mark.parametrize(
    ("error", "disagreement", "is_said"),
    [
        (0.0717, 0.019, True),  # BatchEnsemble from N(1, .5²), ResNet-20 at full length
        (0.522, 0.112, True),  # ResNet-8 that fits its data
        (0.43, 0.089, True),  # 48,000 steps
        (0.0539, 0.074, False),  # deep ensembles
        (0.478, 0.467, False),
        (0.43, 0.331, False),
        (0.1206, 0.068, False),  # BatchEnsembles that close most of the gap
        (0.498, 0.495, False),
        (0.476, 0.395, False),
    ],
)
def test_near_copies_are_detected_in_measured_errors_and_disagreements(
    error: float, disagreement: float, is_said: bool
) -> None:
    assert (near_copies(history_line(error, disagreement), 5000, 4, NOTHING) is not None) is is_said


def test_near_copies_are_not_reported_with_too_few_errors() -> None:
    for examples, errors in ((20, 5), (143, 4), (5000, 0), (10, 10)):
        assert near_copies(history_line(errors / examples, 0.0), examples, 4, NOTHING) is None
    assert near_copies(history_line(0.5, 0.0), 100, 4, NOTHING) is not None
    assert near_copies({"validation_nll": 1.0}, 100, 4, NOTHING) is None


@pytest.mark.parametrize("known", [10, 500])
def test_validation_examples_without_a_label_do_not_count_as_evidence_of_near_copies(known: int) -> None:
    x, y = torch.randn(500, 3), torch.zeros(500, dtype=torch.int64)
    y[known:] = -100
    algorithm, model = MAP(), Model(ensemble(nn.Linear(3, 2), 4, "normal"), Categorical(ignore_index=-100))
    state = algorithm.init(lambda: model, 500, 1)
    line = {"epoch": 0, "loss": 1.0, "train_nll": 1.0, **history_line(0.5, 0.0)}
    said = list(verdicts(algorithm, state, [line], batches_of((x, y)), is_best=False))
    assert len(said) == (known == 500)


@pytest.mark.parametrize(
    ("error", "disagreement", "in_training"),
    [(0.24, 0.042, 0.191), (0.207, 0.0522, 0.179), (0.2, 0.0478, 0.133), (0.233, 0.0533, 0.116)],
)
def test_agreement_on_noisy_labels_is_not_reported_as_near_copies(
    error: float, disagreement: float, in_training: float
) -> None:
    """Measured with BatchEnsembles and deep ensembles on a table in which a fifth of the labels are noise."""
    assert near_copies(history_line(error, disagreement, in_training), 150, 4, NOTHING) is None


def test_the_advice_names_two_of_the_remedies_that_are_left() -> None:
    words = ("random_sign", "feed", "own)")
    for left in product((False, True), repeat=3):
        said = near_copies(history_line(0.5, 0.0), 100, 4, Remedies(*left))
        assert said is not None
        named = [word for word in words if word in said]
        assert named == [word for word, is_left in zip(words, left, strict=True) if is_left][:2]
        assert ("train a deep ensemble" in said) is (sum(left) < 2)


@pytest.mark.parametrize(
    ("convert", "left"),
    [
        (partial(ensemble, init="normal"), Remedies()),
        (partial(ensemble, init="random_sign"), Remedies(signs=False)),
        (partial(ensemble, init="fixed_sign", own=("head",)), Remedies(signs=False, weights=False)),
        (partial(ensemble, init={"0": "random_sign", "*": "ones"}), Remedies(signs=False)),
        (partial(ensemble, init="normal", factor_form="additive"), Remedies(signs=False)),
        (partial(packed, example=torch.zeros(2, 30)), Remedies(signs=False, weights=False)),
        (partial(masked, example=torch.zeros(2, 30)), Remedies(signs=False, weights=False)),
    ],
    ids=["normal", "random-signs", "fixed-signs-and-own-head", "some-signs", "additive", "packed", "masked"],
)
def test_only_remedies_that_suit_the_network_are_left(convert: Callable[..., nn.Module], left: Remedies) -> None:
    net = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 3))
    assert Remedies.of(convert(net, 4), has_data=False) == left


def with_noisy_labels() -> Data:
    """Return digits with random labels for half of the validation images, so that there are errors."""
    data = digits()
    random = torch.Generator().manual_seed(0)
    labels = data.validation.labels.clone()
    labels[::2] = torch.randint(10, labels[::2].shape, generator=random)
    return replace(data, validation=replace(data.validation, labels=labels))


@pytest.mark.parametrize(
    ("algorithm", "options", "is_said"),
    [
        (MAP(), {"size": 4, "init": FactorInit("normal", sd=1e-3)}, True),
        (MAP(), {"size": 4, "init": "random_sign"}, False),
        (MAP(), {"size": 1}, False),
        (DeepEnsemble(MAP(), 2), {}, False),
    ],
)
def test_a_training_that_ends_with_near_copies_logs_it_once(
    algorithm: Inference[Any], options: dict[str, Any], is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bayes_share")
    training = Training(algorithm, builder(**options), batches_of(with_noisy_labels(), 48), 5)
    # Members that have learned little may disagree: only the end of the training counts.
    trained(training)
    said = [record.getMessage() for record in caplog.records if "near copies" in record.getMessage()]
    assert len(said) == is_said
    assert all("\n" not in text and "random_sign" in text and "of 2" not in text for text in said)
