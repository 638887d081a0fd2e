"""The other calibration errors: maximum, average, class-wise and adaptive, against loops and netcal."""

from functools import partial
from typing import Any

import pytest
import torch
from random_predictions import make
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import (
    adaptive_ece,
    average_calibration_error,
    classwise_ece,
    ece,
    log_probs,
    mce,
    reliability,
)

approx = partial(pytest.approx, rel=1e-12, abs=1e-14)


def random_probs(images: int = 500, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    predictions = make(draws=1, members=2, images=images, classes=classes, seed=seed)
    return log_probs(predictions.logits).exp(), predictions.labels


def confident(confidences: list[float], classes: int = 4) -> Tensor:
    first = torch.tensor(confidences, dtype=torch.float64)[:, None]
    return torch.cat([first, ((1 - first) / (classes - 1)).expand(-1, classes - 1)], dim=1)


def gaps(confidence: list[float], right: list[bool], bins: int) -> list[tuple[int, float]]:
    """Count and gap of each non-empty bin, by a loop over bins and images."""
    found = []
    for b in range(bins):
        inside = [(p, r) for p, r in zip(confidence, right, strict=True) if b / bins < p <= (b + 1) / bins]
        if inside:
            gap = abs(sum(r for _, r in inside) - sum(p for p, _ in inside)) / len(inside)
            found.append((len(inside), gap))
    return found


def top(probs: Tensor, labels: Tensor) -> tuple[list[float], list[bool]]:
    confidence, predicted = probs.double().max(-1)
    return confidence.tolist(), (predicted == labels).tolist()


@pytest.mark.parametrize("bins", [1, 10, 15, 40])
@pytest.mark.parametrize("classes", [3, 20])
def test_maximum_and_average_agree_with_netcal_and_a_loop(classes: int, bins: int) -> None:
    from netcal.metrics import ACE, MCE

    probs, labels = random_probs(classes=classes)
    expected = [gap for _, gap in gaps(*top(probs, labels), bins)]
    arrays: Any = probs.numpy(), labels.numpy()
    assert mce(probs, labels, bins) == approx(max(expected)) == approx(MCE(bins).measure(*arrays))
    average = average_calibration_error(probs, labels, bins)
    assert average == approx(sum(expected) / len(expected)) == approx(ACE(bins).measure(*arrays))
    assert mce(probs, labels, bins) == reliability(probs, labels, bins).mce


def test_empty_bins_are_ignored() -> None:
    probs, labels = confident([0.55, 0.55, 0.95]), torch.tensor([0, 1, 1])
    assert mce(probs, labels, 10) == approx(0.95)
    assert average_calibration_error(probs, labels, 10) == approx((0.05 + 0.95) / 2)
    assert ece(probs, labels, 10) == approx((2 * 0.05 + 0.95) / 3)


@pytest.mark.parametrize("bins", [1, 15])
@pytest.mark.parametrize("classes", [2, 5, 30])
def test_classwise_ece_equals_its_formula(classes: int, bins: int) -> None:
    probs, labels = random_probs(images=200, classes=classes)
    total = 0.0
    for c in range(classes):
        column = gaps(probs[:, c].tolist(), (labels == c).tolist(), bins)
        total += sum(count * gap for count, gap in column) / 200
    assert classwise_ece(probs, labels, bins) == approx(total / classes)


def test_a_class_without_examples_counts_in_classwise_ece() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).expand(10, 3)
    labels = torch.tensor([0, 1] * 5)
    assert classwise_ece(probs, labels) == approx((0 + 0.2 + 0.2) / 3)


def test_a_probability_of_exactly_0_or_1_is_binned() -> None:
    probs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert classwise_ece(probs, torch.tensor([0, 1])) == 0
    for error in (mce, average_calibration_error, adaptive_ece):
        assert error(probs, torch.tensor([0, 1])) == 0
        assert error(probs, torch.tensor([1, 0])) == 1


@pytest.mark.parametrize("bins", [1, 4, 10, 25, 100])
def test_adaptive_bins_split_the_sorted_images(bins: int) -> None:
    probs, labels = random_probs(images=100)
    confidence, right = top(probs, labels)
    order = sorted(range(100), key=confidence.__getitem__)
    size = 100 // bins
    total = 0.0
    for first in range(0, 100, size):
        inside = order[first : first + size]
        total += abs(sum(right[i] - confidence[i] for i in inside))
    assert adaptive_ece(probs, labels, bins) == approx(total / 100)


def test_adaptive_bins_differ_by_at_most_one_image() -> None:
    confidences = torch.linspace(0.3, 0.99, 103, dtype=torch.float64).tolist()
    probs = confident(confidences)
    # All wrong, or all right: the error tells the sum of each bin only if nothing is lost.
    assert adaptive_ece(probs, torch.ones(103, dtype=torch.int64)) == approx(sum(confidences) / 103)
    ranks = [r * 15 // 103 for r in range(103)]
    right = torch.tensor([r % 2 == 0 for r in range(103)])
    expected = sum(abs(sum(float(right[r]) - confidences[r] for r in range(103) if ranks[r] == b)) for b in range(15))
    assert {ranks.count(b) for b in range(15)} == {6, 7}
    assert adaptive_ece(probs, (~right).long()) == approx(expected / 103)


def test_tied_confidences_share_a_bin_in_any_order() -> None:
    probs = confident([0.5] * 6 + [0.9] * 4)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 0, 1])
    expected = (6 * 0 + 4 * 0.15) / 10
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        order = torch.randperm(10, generator=generator)
        assert adaptive_ece(probs[order], labels[order], 10) == approx(expected)
    assert adaptive_ece(confident([0.7] * 5), torch.tensor([0, 0, 0, 1, 1])) == approx(0.1)


def test_tied_confidences_have_their_mean_rank() -> None:
    probs = confident([0.5] * 3 + [0.9])  # of the ranks 0, 1 and 2 the mean is 1, of the lower half
    assert adaptive_ece(probs, torch.tensor([0, 0, 0, 1]), 2) == approx((1.5 + 0.9) / 4)


def test_with_fewer_images_than_bins_each_image_has_its_own_bin() -> None:
    probs, labels = confident([0.4, 0.6, 0.8]), torch.tensor([0, 1, 0])
    assert adaptive_ece(probs, labels, 15) == approx((0.6 + 0.6 + 0.2) / 3)
    assert adaptive_ece(probs[:1], labels[:1], 15) == approx(0.6)


def test_adaptive_ece_finds_errors_that_cancel_in_bins_of_equal_width() -> None:
    """All confidences are in one bin of equal width; half are too low and half are too high."""
    probs = confident([0.945] * 10 + [0.995] * 10)
    labels = torch.tensor([0] * 10 + [0] * 9 + [1])
    assert adaptive_ece(probs, labels, 2) > 2 * ece(probs, labels, 10)


@pytest.mark.parametrize("error", [mce, average_calibration_error, classwise_ece, adaptive_ece])
def test_fewer_than_one_bin_is_rejected_by_all_errors(error: Any) -> None:
    with pytest.raises(InputError, match="calibration requires at least one bin, not 0"):
        error(confident([0.7]), torch.tensor([0]), 0)
