"""Bootstrap intervals and paired differences, against plain loops, scipy and known distributions."""

import math

import numpy as np
import pytest
import torch
from random_predictions import make
from scipy import stats

from bayes_share.errors import InputError
from bayes_share.evaluation import (
    Predictions,
    ece_interval,
    log_probs,
    per_image,
    score,
    squared_calibration_error,
)
from bayes_share.evaluation.bootstrap_intervals import bootstrap, bootstrap_mean, paired_differences, score_intervals

VALUES = torch.randn(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()


def test_the_bootstrap_equals_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    means = [VALUES[torch.randint(80, (80,), generator=generator)].mean().item() for _ in range(200)]
    found = bootstrap(lambda images: VALUES[images].mean().item(), 80, resamples=200, seed=3, confidence=0.9)
    assert found.value == VALUES.mean().item()
    assert found.low == pytest.approx(np.quantile(means, 0.05), rel=1e-12)
    assert found.high == pytest.approx(np.quantile(means, 0.95), rel=1e-12)
    assert found.error == pytest.approx(np.std(means, ddof=1), rel=1e-12)


def test_the_bootstrap_agrees_with_scipy() -> None:
    ours = bootstrap_mean(VALUES, resamples=20_000)
    theirs = stats.bootstrap(
        (VALUES.numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    )
    # The quantiles of 20,000 resamples have a standard error of about 0.02 of the mean's.
    near = 0.1 * theirs.standard_error
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=near)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=near)
    assert ours.error == pytest.approx(theirs.standard_error, rel=0.03)


def test_bootstrap_mean_equals_the_bootstrap_of_the_mean() -> None:
    slow = bootstrap(lambda images: VALUES[images].mean().item(), 80, seed=5)
    fast = bootstrap_mean(VALUES, seed=5)
    assert [fast.value, fast.low, fast.high, fast.error] == pytest.approx(
        [slow.value, slow.low, slow.high, slow.error], rel=1e-12
    )


def test_resampling_in_chunks_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_mean(VALUES, resamples=101)
    monkeypatch.setattr("bayes_share.evaluation.bootstrap_intervals._AT_A_TIME", 170)  # two resamples at a time
    parts = bootstrap_mean(VALUES, resamples=101)
    assert (parts.low, parts.high, parts.error) == pytest.approx((whole.low, whole.high, whole.error), rel=1e-12)


def test_a_95_percent_interval_covers_the_mean_in_about_95_percent_of_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(300):
        found = bootstrap_mean(torch.randn(100, generator=generator), resamples=300)
        covered += found.low <= 0 <= found.high
    assert abs(covered / 300 - 0.94) < 4 * math.sqrt(0.94 * 0.06 / 300)  # a little less than 0.95 at 100 images


def test_score_intervals_combine_bootstrap_means_and_the_ece_interval() -> None:
    predictions = make(images=120)
    mixture, labels = log_probs(predictions.logits), predictions.labels
    found = score_intervals(predictions, resamples=100, seed=2)
    scores = score(predictions)
    assert list(found) == ["accuracy", "nll", "brier", "ece"]
    for name, interval in found.items():
        assert interval.value == pytest.approx(getattr(scores, name), rel=1e-12)
    assert found["ece"] == ece_interval(mixture.exp(), labels)
    for name, values in per_image(mixture, labels).items():
        alone = bootstrap_mean(values, resamples=100, seed=2)
        assert [found[name].low, found[name].high] == pytest.approx([alone.low, alone.high], rel=1e-12)


def test_differences_are_paired_over_images() -> None:
    one, other = make(images=150), make(images=150, seed=1)
    other = Predictions(other.logits.roll(1, 2), one.labels)
    found = paired_differences(one, other)
    ours, theirs = (per_image(log_probs(each.logits), each.labels) for each in (one, other))
    for name in ours:
        difference = (ours[name] - theirs[name]).numpy()
        assert found[name].mean == pytest.approx(difference.mean(), rel=1e-12)
        assert found[name].error == pytest.approx(stats.sem(difference), rel=1e-12)
        assert found[name].count == 150
    squared = [squared_calibration_error(log_probs(each.logits).exp(), each.labels) for each in (one, other)]
    assert found["squared_calibration_error"].mean == pytest.approx(squared[0] - squared[1], rel=1e-10)
    assert "ece" not in found


def test_difficulty_common_to_both_predictions_cancels() -> None:
    one = make(images=400)
    other = Predictions(1.1 * one.logits, one.labels)
    found = paired_differences(one, other)
    apart = [score_intervals(each)["nll"].error for each in (one, other)]
    assert found["nll"].error is not None
    assert found["nll"].error < 0.2 * math.hypot(*apart)


def test_equal_predictions_have_no_difference() -> None:
    for difference in paired_differences(make(), make()).values():
        assert (difference.mean, difference.error, difference.count) == (0, 0, 200)
        assert not difference.is_clear()


def test_one_image_has_no_error() -> None:
    one, other = make(images=1), make(images=1, draws=1)
    other = Predictions(other.logits, one.labels)
    assert all(difference.error is None for difference in paired_differences(one, other).values())
    found = score_intervals(one)
    assert found.pop("ece").low == 0
    found["again"] = bootstrap(lambda images: 1.0, 1, resamples=5)
    for interval in found.values():  # NaN, not 0: a single image shows no variation
        assert all(math.isnan(number) for number in (interval.low, interval.high, interval.error))


def test_a_constant_score_has_an_interval_of_width_0() -> None:
    labels = torch.arange(5)
    found = score_intervals(Predictions(100 * torch.eye(5)[None, None], labels))
    assert (found["accuracy"].low, found["accuracy"].value, found["accuracy"].high) == (1, 1, 1)
    nothing_wrong_in_five = 1.959964**2 / (5 + 1.959964**2)  # Wilson's bound of a share
    assert (found["ece"].low, found["ece"].high) == pytest.approx((0, nothing_wrong_in_five), abs=1e-6)


def test_predictions_for_other_images_are_rejected() -> None:
    with pytest.raises(InputError, match="the predictions are for different examples: one has 200, the other 100"):
        paired_differences(make(), make(images=100))
    labels = make().labels.clone()
    labels[7] = (labels[7] + 1) % 5
    with pytest.raises(InputError, match="labels differ: 1 of 200, the first at example 7"):
        paired_differences(make(), Predictions(make().logits, labels))


def test_invalid_bootstrap_arguments_are_rejected() -> None:
    with pytest.raises(InputError, match="at least 2 resamples, not 1"):
        score_intervals(make(), resamples=1)
    with pytest.raises(InputError, match=r"between 0 and 1, and is 95\.0"):
        bootstrap_mean(VALUES, confidence=95.0)
    with pytest.raises(InputError, match="no examples"):
        bootstrap(lambda images: 0.0, 0)
    with pytest.raises(InputError, match="values that are NaN: 1 of 3, the first at example 1"):
        bootstrap_mean(torch.tensor([0.0, torch.nan, 1.0]))
