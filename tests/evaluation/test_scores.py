import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from random_predictions import make
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import (
    Predictions,
    Scores,
    accuracy,
    adaptive_ece,
    average_calibration_error,
    brier,
    calibrate,
    classwise_ece,
    diversity,
    ece,
    ece_interval,
    elpd,
    fit_calibration,
    log_probs,
    mce,
    member_nll,
    nll,
    ood_scores,
    paired_differences,
    per_image,
    reliability,
    score,
    score_intervals,
    squared_calibration_error,
    top_k_accuracy,
    uncertainty,
)

SCORES: list[Callable[[Tensor, Tensor], object]] = [
    accuracy,
    brier,
    ece,
    reliability,
    top_k_accuracy,
    mce,
    average_calibration_error,
    classwise_ece,
    adaptive_ece,
    squared_calibration_error,
    ece_interval,
]


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    predictions = make(seed=seed)
    mixture, labels = log_probs(predictions.logits), predictions.labels
    probs = mixture.exp()
    assert accuracy(probs, labels) == accuracy_score(labels.numpy(), probs.argmax(-1).numpy())
    assert nll(mixture, labels) == pytest.approx(log_loss(labels.numpy(), probs.numpy(), labels=range(5)), rel=1e-13)


def test_the_brier_score_equals_its_formula() -> None:
    predictions = make(images=50)
    probs, labels = log_probs(predictions.logits).exp(), predictions.labels
    total = 0.0
    for row, label in zip(probs.tolist(), labels.tolist(), strict=True):
        total += sum((p - (c == label)) ** 2 for c, p in enumerate(row))
    assert brier(probs, labels) == pytest.approx(total / 50, rel=1e-13)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_uniform_prediction_has_known_scores(classes: int) -> None:
    labels = torch.arange(classes)
    scores = score(Predictions(torch.full((3, 2, classes, classes), 7.0), labels))
    assert scores.accuracy == 1 / classes  # among equals, the first
    assert scores.nll == pytest.approx(math.log(classes), rel=1e-14)
    assert scores.member_nll == pytest.approx(math.log(classes), rel=1e-14)
    assert scores.brier == pytest.approx(1 - 1 / classes, rel=1e-14)
    assert scores.ece == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize(("right", "expected"), [(True, (1.0, 0.0, 0.0, 0.0)), (False, (0.0, 80.0, 2.0, 1.0))])
def test_best_and_worst_predictions_have_the_extreme_scores(right: bool, expected: tuple[float, ...]) -> None:
    labels = torch.tensor([0, 1, 2, 1])
    sure = labels if right else (labels + 1) % 3
    scores = score(Predictions(80 * torch.eye(3)[sure][None, None], labels))
    assert (scores.accuracy, scores.nll, scores.brier, scores.ece) == pytest.approx(expected, abs=1e-14)


def test_a_label_with_probability_0_has_an_infinite_nll() -> None:
    assert nll(torch.tensor([[0.0, -math.inf]]), torch.tensor([1])) == math.inf
    assert nll(torch.tensor([[0.0, -math.inf]]), torch.tensor([0])) == 0


def test_float32_probabilities_are_scored_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.rand(20_000, 10, generator=generator).softmax(-1)
    labels = torch.randint(10, (20_000,), generator=generator)
    exact = probs.numpy().astype(np.float64)
    assert brier(probs, labels) == pytest.approx(((exact - np.eye(10)[labels]) ** 2).sum(-1).mean(), rel=1e-13)
    logs = probs.log()
    chosen = logs.numpy().astype(np.float64)[np.arange(20_000), labels]
    assert nll(logs, labels) == pytest.approx(-chosen.mean(), rel=1e-13)


def test_member_nll_is_the_mean_over_members() -> None:
    predictions = make(draws=2, members=3)
    alone = [
        nll(log_probs(predictions.logits[d : d + 1, m : m + 1]), predictions.labels) for d in range(2) for m in range(3)
    ]
    assert member_nll(predictions.logits, predictions.labels) == pytest.approx(sum(alone) / 6, rel=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_the_nll_of_the_mixture_is_at_most_the_member_nll(seed: int) -> None:
    scores = score(make(seed=seed))
    assert scores.nll < scores.member_nll
    one = score(make(draws=1, members=1, seed=seed))
    assert one.nll == one.member_nll


@pytest.mark.parametrize("classes", [4, 7])
def test_score_returns_each_score_in_its_field(classes: int) -> None:
    predictions = make(draws=2, members=3, images=40, classes=classes)
    mixture, labels = log_probs(predictions.logits), predictions.labels
    probs = mixture.exp()
    assert score(predictions, bins=7) == Scores(
        accuracy=accuracy(probs, labels),
        nll=nll(mixture, labels),
        brier=brier(probs, labels),
        ece=ece(probs, labels, 7),
        member_nll=member_nll(predictions.logits, labels),
        top5_accuracy=top_k_accuracy(probs, labels, 5) if classes == 7 else None,
        mce=mce(probs, labels, 7),
        average_calibration_error=average_calibration_error(probs, labels, 7),
        classwise_ece=classwise_ece(probs, labels, 7),
        adaptive_ece=adaptive_ece(probs, labels, 7),
        squared_calibration_error=squared_calibration_error(probs, labels, 7),
        num_images=40,
        num_draws=2,
        num_members=3,
    )


def test_processing_in_chunks_does_not_change_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = make()
    whole = log_probs(predictions.logits)
    alone = member_nll(predictions.logits, predictions.labels)
    monkeypatch.setattr("bayes_share.models.mixture._AT_A_TIME", 6 * 5 * 7)  # 7 images
    torch.testing.assert_close(log_probs(predictions.logits), whole, rtol=1e-13, atol=0)
    assert member_nll(predictions.logits, predictions.labels) == pytest.approx(alone, rel=1e-14)


@pytest.mark.parametrize("function", SCORES)
def test_nan_is_rejected_with_its_position(function: Callable[[Tensor, Tensor], object]) -> None:
    probs = torch.full((4, 3), 1 / 3)
    probs[2, 1] = torch.nan
    with pytest.raises(InputError, match="NaN: 1 of 12, the first at example 2, class 1"):
        function(probs, torch.tensor([0, 1, 2, 0]))


def test_nan_in_log_probabilities_and_logits_is_rejected() -> None:
    logs = torch.full((4, 3), 1 / 3).log()
    logs[3, 0] = torch.nan
    with pytest.raises(InputError, match="NaN: 1 of 12, the first at example 3, class 0"):
        nll(logs, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(InputError, match="not finite: 1 of 12, the first at draw 0, member 0, example 3, class 0"):
        member_nll(logs[None, None], torch.tensor([0, 1, 2, 0]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("function", SCORES)
@pytest.mark.parametrize(
    ("probs", "labels", "expected"),
    [
        (torch.tensor([[0.5, 0.5], [3.0, 1.0]]), torch.tensor([0, 1]), "sum to 1: 1 of 2, the first at example 1: 4"),
        (torch.tensor([[0.5, 0.5], [1.2, -0.2]]), torch.tensor([0, 1]), "negative: 1 of 4, the first at example 1"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([0, 1]), "there are 2 labels for 1 examples"),
        (
            torch.tensor([[0.5, 0.5]]),
            torch.tensor([2]),
            "the classes 0 to 1: 1 of 1, the first at example 0: 2",
        ),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([1.0]), "labels must be int64 classes, and are float32"),
        (torch.tensor([[1, 0]]), torch.tensor([0]), "probabilities must be floating point, and are int64"),
        (torch.tensor([0.5, 0.5]), torch.tensor([0, 1]), r"axes \[example, class\]: the shape \[2\] is wrong"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), r"the shape \[0, 2\] is empty"),
    ],
)
def test_rows_that_are_not_distributions_are_rejected(
    function: Callable[[Tensor, Tensor], object], probs: Tensor, labels: Tensor, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        function(probs, labels)


def test_probabilities_passed_as_log_probabilities_are_rejected() -> None:
    with pytest.raises(InputError, match="do not sum to 1"):
        nll(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_top_k_accuracy_agrees_with_scikit_learn(k: int) -> None:
    predictions = make(classes=6)
    probs = log_probs(predictions.logits).exp()
    expected = top_k_accuracy_score(predictions.labels.numpy(), probs.numpy(), k=k, labels=range(6))
    assert top_k_accuracy(probs, predictions.labels, k) == pytest.approx(expected, rel=1e-14)


def test_top_1_accuracy_is_the_accuracy_and_top_all_is_1() -> None:
    predictions = make()
    probs = log_probs(predictions.logits).exp()
    assert top_k_accuracy(probs, predictions.labels, 1) == accuracy(probs, predictions.labels)
    assert top_k_accuracy(probs, predictions.labels, 5) == 1


def test_ties_in_top_k_accuracy_favour_the_first_classes() -> None:
    probs, labels = torch.full((8, 8), 1 / 8), torch.arange(8)
    assert top_k_accuracy(probs, labels) == 5 / 8
    assert top_k_accuracy(probs, labels, 1) == accuracy(probs, labels) == 1 / 8


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range_is_rejected(k: int) -> None:
    with pytest.raises(InputError, match=f"from 1 to 3, the number of classes, and is {k}"):
        top_k_accuracy(torch.full((1, 3), 1 / 3), torch.tensor([0]), k)


def test_scores_are_means_over_images() -> None:
    predictions = make()
    mixture, labels = log_probs(predictions.logits), predictions.labels
    values = per_image(mixture, labels)
    assert {name: value.dtype for name, value in values.items()} == dict.fromkeys(values, torch.float64)
    assert values["accuracy"].mean().item() == accuracy(mixture.exp(), labels)
    assert values["nll"].mean().item() == nll(mixture, labels)
    assert values["brier"].mean().item() == brier(mixture.exp(), labels)
    one = per_image(mixture[17:18], labels[17:18])
    assert {name: value[17].item() for name, value in values.items()} == {name: v.item() for name, v in one.items()}


def test_the_brier_score_is_never_negative() -> None:
    sure = torch.tensor([[1 - 1e-9, 1e-9]], dtype=torch.float64).expand(50, 2)
    noisy = (sure + torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-12).clamp(0)
    assert per_image(noisy.log(), torch.zeros(50, dtype=torch.int64))["brier"].min() >= 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "function",
    [
        score,
        ood_scores,
        diversity,
        elpd,
        score_intervals,
        lambda logits: paired_differences(logits, logits),
        lambda logits: calibrate("temperature", logits, logits),
        lambda logits: fit_calibration("temperature", logits),
    ],
)
def test_tensors_are_rejected_where_predictions_are_expected(function: Callable[[Tensor], object]) -> None:
    with pytest.raises(InputError, match=r"expected (Predictions\(logits, labels\)|Outputs\(logits\)), not Tensor"):
        function(torch.zeros(1, 1, 30, 3))


@pytest.mark.usefixtures("unchecked")
def test_lists_of_labels_are_rejected() -> None:
    with pytest.raises(InputError, match="labels must be a tensor or a NumPy array, not list"):
        Predictions(torch.zeros(1, 1, 2, 3), [0, 1])  # type: ignore[arg-type]


def test_logits_that_require_gradients_have_the_same_scores() -> None:
    made = make(2, 3, images=40, classes=4)
    logits = made.logits.clone().requires_grad_()
    predictions = Predictions(logits, made.labels)
    assert score(predictions) == score(made)
    for found in (uncertainty(predictions), uncertainty(logits)):
        assert torch.equal(found.entropy, uncertainty(made).entropy)
    found = calibrate("temperature", predictions, predictions).logits
    assert not found.requires_grad
    assert torch.equal(found, calibrate("temperature", made, made).logits)
