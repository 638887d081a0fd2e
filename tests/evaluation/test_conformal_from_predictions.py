"""Conformal sets and intervals from predictions, and the coverage of intervals."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from bayes_share import NumberPredictions, Outputs, Predictions, conformal_intervals, conformal_sets
from bayes_share.errors import InputError
from bayes_share.evaluation.conformal import fit_sets, interval_coverage

ALPHA = 0.1


def numbers(examples: int, seed: int, *target: int) -> NumberPredictions:
    """A normal distribution for each target, with half the correct scale."""
    rng = np.random.default_rng(seed)
    loc, scale = rng.normal(size=(examples, *target)), np.exp(rng.normal(size=(examples, *target)))
    return NumberPredictions({"loc": loc, "scale": scale / 2}, loc + scale * rng.normal(size=loc.shape))


def of_normals(of: NumberPredictions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    loc, scale = (of.arguments[name][0, 0].numpy() for name in ("loc", "scale"))
    return loc, scale, of.targets.numpy()


def test_sets_use_the_probabilities_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 100)
    logits = rng.normal(size=(2, 3, 100, 4)) + 2 * np.eye(4)[labels]
    calibration, test = Predictions(logits, labels), Outputs(rng.normal(size=(2, 3, 30, 4)))
    probs = calibration.log_probs.exp()
    for method in ("lac", "aps"):
        expected = fit_sets(method, probs, calibration.labels, ALPHA)(test.log_probs.exp())
        assert torch.equal(conformal_sets(calibration, test, method, ALPHA), expected)  # type: ignore[arg-type]


def test_intervals_are_widened_by_the_right_order_statistic() -> None:
    """The ⌈(n + 1)(1 − α)⌉-th smallest of n scores, written out for both methods."""
    calibration, test = numbers(57, 0), numbers(20, 1)
    (loc, scale, y), (new_loc, new_scale, _) = of_normals(calibration), of_normals(test)
    rank, z = math.ceil(58 * 0.9) - 1, stats.norm.ppf(0.95)
    moved = np.sort(np.maximum(loc - z * scale - y, y - loc - z * scale))[rank]
    times = np.sort(abs(y - loc) / scale)[rank]
    for method, half in (("cqr", z * new_scale + moved), ("scaled", times * new_scale)):
        lower, upper = conformal_intervals(calibration, test, method, ALPHA)  # type: ignore[arg-type]
        assert lower.numpy() == pytest.approx(new_loc - half)
        assert upper.numpy() == pytest.approx(new_loc + half)
        again = conformal_intervals(calibration, test.predictive, method, ALPHA)  # type: ignore[arg-type]
        assert torch.equal(again[0], lower)


def test_each_target_is_calibrated_separately() -> None:
    calibration, test = numbers(60, 0, 2, 2), numbers(9, 1, 2, 2)
    lower, upper = conformal_intervals(calibration, test)
    one, other = (
        NumberPredictions({name: values[0, 0, :, 1, 0] for name, values in of.arguments.items()}, of.targets[:, 1, 0])
        for of in (calibration, test)
    )
    expected = conformal_intervals(one, other)
    assert lower.shape == (9, 2, 2)
    assert torch.equal(lower[:, 1, 0], expected[0])
    assert torch.equal(upper[:, 1, 0], expected[1])


def test_with_six_examples_intervals_are_infinite() -> None:
    lower, upper = conformal_intervals(numbers(6, 0), numbers(3, 1))
    assert lower.tolist() == [-math.inf] * 3
    assert upper.tolist() == [math.inf] * 3
    found = interval_coverage(lower, upper, torch.zeros(3).double())
    assert (found.overall.coverage.value, found.width.value) == (1.0, math.inf)


def test_interval_coverage_is_computed_by_width() -> None:
    """Seven intervals from 0, of widths 1 to 7: the target 2.5 is in all but the two narrowest."""
    upper = torch.tensor([7.0, 1.0, 3.0, 5.0, 2.0, 6.0, 4.0])
    found = interval_coverage(torch.zeros(7), upper, torch.full((7,), 2.5))
    assert [*found.by_width] == [(1.0, 2.0), (3.0, 5.0), (6.0, 7.0)]
    assert [group.coverage.value for group in found.by_width.values()] == [0.0, 1.0, 1.0]
    assert [group.count for group in found.by_width.values()] == [2, 3, 2]
    assert found.overall.coverage.value == pytest.approx(5 / 7)
    assert found.width.value == 4.0
    low, high = stats.binomtest(5, 7).proportion_ci(method="exact")
    assert (found.overall.coverage.low, found.overall.coverage.high) == pytest.approx((low, high))


def test_equal_widths_form_one_group_and_an_empty_interval_covers_nothing() -> None:
    lower = torch.linspace(0, 1, 30).double()
    assert len(interval_coverage(lower, lower + 0.1, lower).by_width) == 1
    empty = interval_coverage(lower + 1, lower, lower)
    assert (empty.overall.coverage.value, empty.width.value) == (0.0, 0.0)


def test_targets_of_an_example_do_not_count_as_examples() -> None:
    one = torch.arange(40).double() % 5
    upper, target = torch.full((40, 3), 2.5).double(), one[:, None].expand(40, 3)
    found = interval_coverage(torch.zeros(40, 3), upper, target).overall
    assert found.count == 40
    assert found.coverage.value == pytest.approx(0.6)
    assert found.coverage.error == pytest.approx(math.sqrt(0.6 * 0.4 / 40), rel=0.1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: conformal_intervals(numbers(9, 0), numbers(9, 1), "lac"), "unknown conformal method"),
        (lambda: conformal_intervals(numbers(9, 0), numbers(9, 1), alpha=1), "alpha, the miscoverage"),
        (lambda: conformal_intervals(numbers(9, 0), numbers(9, 1, 2)), "targets of shape [], and the test examples"),
        (lambda: conformal_intervals(numbers(9, 0).targets, numbers(9, 1)), "expected NumberPredictions"),
        (lambda: conformal_intervals(numbers(9, 0), 3), "or a Predictive, not int"),
        (lambda: conformal_sets(numbers(9, 0), numbers(9, 1)), "expected Predictions(logits, labels), not Number"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_input_is_rejected(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        call()
