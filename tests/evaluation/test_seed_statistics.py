"""Means over seeds and paired differences, against closed forms and other implementations."""

import math

import numpy as np
import pytest
from scipy import stats

from bayes_share.errors import InputError
from bayes_share.evaluation.seed_statistics import estimate, paired_difference

VALUES = np.random.default_rng(0).normal(3.0, 0.7, 7).tolist()
OTHERS = np.random.default_rng(1).normal(2.5, 0.7, 7).tolist()


def test_mean_and_standard_error() -> None:
    found = estimate(VALUES)
    assert found.mean == pytest.approx(np.mean(VALUES), rel=1e-12)
    assert found.error == pytest.approx(stats.sem(VALUES), rel=1e-12)
    assert found.count == 7


def test_one_value_has_no_error_and_is_never_clear() -> None:
    found = estimate([5.0])
    assert (found.mean, found.error, found.count) == (5.0, None, 1)
    assert not found.is_clear()


def test_paired_values_are_subtracted_before_averaging() -> None:
    one, other = dict(enumerate(VALUES)), dict(enumerate(OTHERS))
    found = paired_difference(one, other)
    assert found.mean == pytest.approx(np.mean(VALUES) - np.mean(OTHERS), rel=1e-12)
    assert found.error == pytest.approx(stats.sem(np.subtract(VALUES, OTHERS)), rel=1e-12)
    assert found.error != pytest.approx(math.hypot(stats.sem(VALUES), stats.sem(OTHERS)), rel=1e-3)


def test_effects_of_a_seed_on_both_cancel() -> None:
    shifted = {seed: value + 0.25 for seed, value in enumerate(VALUES)}
    found = paired_difference(shifted, dict(enumerate(VALUES)))
    assert found.mean == pytest.approx(0.25)
    assert found.error == pytest.approx(0.0, abs=1e-12)


def test_only_common_seeds_count() -> None:
    found = paired_difference({0: 1.0, 2: 5.0, 3: 4.0}, {2: 1.0, 3: 2.0, 9: 100.0})
    assert (found.mean, found.error, found.count) == (3.0, 1.0, 2)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_is_clear_agrees_with_a_t_test(confidence: float) -> None:
    for shift in np.linspace(-4, 0, 30):
        values = [value + shift for value in VALUES]
        p = stats.ttest_1samp(values, 0.0).pvalue
        assert estimate(values).is_clear(confidence) == (p < 1 - confidence)


def test_no_values_are_rejected() -> None:
    with pytest.raises(InputError, match="no values"):
        estimate([])
    with pytest.raises(InputError, match="the two have no common seed"):
        paired_difference({0: 1.0}, {1: 1.0})
