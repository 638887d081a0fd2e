from functools import partial

import numpy as np
import pytest
import torch
from random_predictions import make
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import ece, log_probs, reliability

approx = partial(pytest.approx, rel=1e-12, abs=1e-14)


def brute_force(probs: Tensor, labels: Tensor, bins: int) -> float:
    """The definition of the ECE by a loop over bins and images, with exact comparisons of ``confidence * bins``."""
    total = 0.0
    rows = list(zip(probs.double().tolist(), labels.tolist(), strict=True))
    for b in range(bins):
        inside = [(max(p), p.index(max(p)) == y) for p, y in rows if b / bins < max(p) <= (b + 1) / bins]
        total += abs(sum(right for _, right in inside) - sum(confidence for confidence, _ in inside))
    return total / len(rows)


def netcal(probs: Tensor, labels: Tensor, bins: int) -> float:
    from netcal.metrics import ECE

    return ECE(bins).measure(probs.double().numpy(), labels.numpy())


def confident(confidences: list[float], classes: int = 4) -> Tensor:
    """Rows whose most probable class, the first, has the given probability."""
    first = torch.tensor(confidences, dtype=torch.float64)[:, None]
    return torch.cat([first, ((1 - first) / (classes - 1)).expand(-1, classes - 1)], dim=1)


@pytest.mark.parametrize("classes", [3, 5, 100])
@pytest.mark.parametrize("bins", [1, 10, 15, 40])
def test_ece_agrees_with_brute_force_and_netcal(classes: int, bins: int) -> None:
    predictions = make(draws=1, members=1, images=500, classes=classes)
    probs = log_probs(predictions.logits).exp()
    ours = ece(probs, predictions.labels, bins)
    assert 0.01 < ours < 1
    assert ours == approx(brute_force(probs, predictions.labels, bins))
    assert ours == approx(netcal(probs, predictions.labels, bins))


@pytest.mark.parametrize("bins", [10, 15])
def test_a_confidence_of_exactly_1_is_in_the_last_bin(bins: int) -> None:
    predictions = make(draws=1, members=1, images=300)
    logits = predictions.logits[0, 0].clone()
    logits[::2, 3] = logits[::2].max() + 25
    probs = logits.softmax(-1)  # float32, where a gap of 20 gives 1
    assert (probs.max(-1).values == 1).sum() == 150
    result = reliability(probs, predictions.labels, bins)
    assert len(result.count) == bins
    assert result.count[-1] >= 150
    assert result.count.sum() == 300
    assert result.ece == approx(brute_force(probs, predictions.labels, bins))
    # netcal clips float64 input to 1 - 2e-16, which is below these tolerances.
    assert result.ece == approx(netcal(probs, predictions.labels, bins))


def test_a_confidence_rounded_above_1_is_in_the_last_bin() -> None:
    probs = torch.tensor([[1 + 2e-7, 0.0, 0.0]])
    assert reliability(probs, torch.tensor([0])).count.tolist() == [0] * 14 + [1]


@pytest.mark.parametrize("bins", [5, 10, 15, 20, 49])
def test_a_confidence_on_an_edge_is_in_the_lower_bin(bins: int) -> None:
    steps = [k for k in range(1, bins + 1) if k / bins > 0.25]  # the most probable of four classes
    probs = confident([k / bins for k in steps])
    labels = torch.arange(len(steps)) % 4
    result = reliability(probs, labels, bins)
    assert [b for b in range(bins) if result.count[b] == 1] == [k - 1 for k in steps]
    assert result.ece == approx(brute_force(probs, labels, bins))


@pytest.mark.parametrize("bins", [5, 15])
def test_a_confidence_just_above_an_edge_is_in_the_upper_bin(bins: int) -> None:
    steps = [k for k in range(1, bins) if k / bins > 0.25]
    probs = confident([float(np.nextafter(k / bins, 1)) for k in steps])
    result = reliability(probs, torch.zeros(len(steps), dtype=torch.int64), bins)
    assert [b for b in range(bins) if result.count[b] == 1] == steps


def test_netcal_puts_a_confidence_on_an_edge_into_the_upper_bin() -> None:
    """The known difference to netcal; fails if netcal changes."""
    probs = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    labels = torch.tensor([0, 2, 1])
    assert ece(probs, labels, 2) == approx(brute_force(probs, labels, 2)) == approx((0.5 + 1.5) / 3, abs=1e-7)
    assert netcal(probs, labels, 2) == approx((0.5 + 0.7 + 0.8 - 1) / 3, abs=1e-7)


def test_two_classes_are_binned_by_confidence() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.3, 0.7], [0.4, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    # Bins of 0.1: 0.9 right, 0.7 once right and once wrong, 0.6 right.
    assert ece(probs, labels, 10) == approx((0.1 + 0.4 + 0.4) / 4)
    assert ece(probs, labels, 10) == approx(brute_force(probs, labels, 10))
    assert ece(probs.flip(1), 1 - labels, 10) == approx((0.1 + 0.4 + 0.4) / 4)
    # netcal bins the probability of class 1 here: 0.1, 0.3, 0.6, 0.7, and would call 0.1 an error of 0.1.
    assert netcal(probs, labels, 10) == approx((0.1 + 0.7 + 0.4 + 0.3) / 4)


def test_ece_of_random_two_class_predictions_agrees_with_brute_force() -> None:
    predictions = make(classes=2, images=300)
    probs = log_probs(predictions.logits).exp()
    assert ece(probs, predictions.labels) == approx(brute_force(probs, predictions.labels, 15))


def test_ece_is_right_if_only_two_of_the_classes_occur() -> None:
    predictions = make(classes=6, images=300)
    probs, labels = log_probs(predictions.logits).exp(), predictions.labels % 2
    assert ece(probs, labels) == approx(brute_force(probs, labels, 15))
    with pytest.raises(RuntimeError, match="binary"):  # why it is not netcal that computes it
        netcal(probs, labels, 15)


def test_ece_is_right_if_a_class_does_not_occur() -> None:
    predictions = make(classes=6, images=300)
    probs, labels = log_probs(predictions.logits).exp(), predictions.labels.clamp(max=4)
    assert ece(probs, labels) == approx(brute_force(probs, labels, 15))
    assert ece(probs, labels) == approx(netcal(probs, labels, 15))


@pytest.mark.parametrize(("label", "expected"), [(0, 0.3), (1, 0.7)])
def test_ece_of_one_image_is_its_gap(label: int, expected: float) -> None:
    assert ece(confident([0.7]), torch.tensor([label])) == approx(expected)


def test_ece_of_all_right_and_all_wrong_predictions() -> None:
    confidences = [0.3, 0.5, 0.75, 0.95, 1.0]
    probs = confident(confidences)
    right, wrong = torch.zeros(5, dtype=torch.int64), torch.tensor([1, 2, 3, 1, 2])
    assert ece(probs, right) == approx(1 - sum(confidences) / 5)
    assert ece(probs, wrong) == approx(sum(confidences) / 5)


def test_calibrated_predictions_have_an_ece_of_0() -> None:
    probs = confident([0.75] * 4 + [0.5] * 4)
    assert ece(probs, torch.tensor([0, 0, 0, 1, 0, 0, 2, 3])) == 0


def test_errors_cancel_within_a_bin_but_not_between_bins() -> None:
    probs = confident([0.55] * 2 + [0.95] * 2)
    labels = torch.tensor([0, 0, 0, 1])  # 0.45 too low, 0.45 too high
    assert ece(probs, labels, 1) == approx(0)
    assert ece(probs, labels, 2) == approx(0)
    assert ece(probs, labels, 10) == approx(0.45)


def test_bins_have_the_counts_confidence_and_accuracy_of_their_images() -> None:
    probs = confident([0.6, 0.7, 0.3, 1.0])
    result = reliability(probs, torch.tensor([0, 1, 2, 0]), bins=4)
    assert result.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert result.count.tolist() == [0, 1, 2, 1]
    assert result.confidence.tolist() == approx([float("nan"), 0.3, 0.65, 1], nan_ok=True)
    assert result.accuracy.tolist() == approx([float("nan"), 0, 0.5, 1], nan_ok=True)
    assert result.ece == approx((0.3 + 2 * 0.15 + 0) / 4)


@pytest.mark.parametrize("bins", [0, -3])
def test_fewer_than_one_bin_is_rejected(bins: int) -> None:
    with pytest.raises(InputError, match=f"requires at least one bin, not {bins}"):
        ece(confident([0.7]), torch.tensor([0]), bins)
