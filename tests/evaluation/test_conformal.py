"""The coverage of conformal sets and intervals for calibration sets of any size."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.conformal import (
    SET_METHODS,
    Threshold,
    fit_quantile_intervals,
    fit_scaled_intervals,
    fit_sets,
    fit_sets_of,
    fit_threshold,
)
from bayes_share.evaluation.conformal.prediction_sets import SetMethod
from bayes_share.evaluation.predictions import Predictions
from bayes_share.models.predictive import Predictive

CASES = 1000

Covers = Callable[..., bool]
"""Calibrates on all examples except the last one, and returns whether the last one is covered."""


def labelled(count: int, seed: int = 0, wrong: float = 3.0) -> tuple[Tensor, Tensor]:
    """Probabilities of an overconfident classifier of 4 classes, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 4, dtype=torch.float64, generator=generator) * 1.5
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    return (wrong * logits).softmax(-1), labels


def constant(count: int) -> tuple[Tensor, Tensor]:
    """A classifier with constant probabilities, whose LAC scores have two distinct values."""
    labels = torch.rand(count, generator=torch.Generator().manual_seed(0)) < 0.3
    return torch.tensor([[0.6, 0.4]], dtype=torch.float64).expand(count, 2), labels.long()


def measured(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Wrong predicted means and standard deviations, and targets."""
    generator = torch.Generator().manual_seed(0)
    mean, noise = torch.randn(2, count, dtype=torch.float64, generator=generator)
    sd = torch.rand(count, dtype=torch.float64, generator=generator) + 0.1
    return mean + 0.5, sd, mean + 2 * sd * noise


def counted(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts with tied scores, and rounded ends of intervals."""
    targets = torch.poisson(torch.full((count,), 1.3), generator=torch.Generator().manual_seed(0))
    return torch.full((count,), 0.3), torch.full((count,), 0.7), targets


def covered_by_set(method: SetMethod) -> Covers:
    def covers(probs: Tensor, labels: Tensor, alpha: float) -> bool:
        sets = fit_sets(method, probs[:-1], labels[:-1], alpha)
        return bool(sets(probs[-1:])[0, labels[-1]])

    return covers


def covered_by_quantiles(mean: Tensor, sd: Tensor, targets: Tensor, alpha: float) -> bool:
    lower, upper = mean - sd, mean + sd
    intervals = fit_quantile_intervals(lower[:-1], upper[:-1], targets[:-1], alpha)
    return inside(intervals(lower[-1:], upper[-1:]), targets[-1])


def covered_by_scaled(mean: Tensor, sd: Tensor, targets: Tensor, alpha: float) -> bool:
    return inside(fit_scaled_intervals(mean[:-1], sd[:-1], targets[:-1], alpha)(mean[-1:], sd[-1:]), targets[-1])


def inside(ends: tuple[Tensor, Tensor], target: Tensor) -> bool:
    return bool((ends[0] <= target) & (target <= ends[1]))


METHODS: dict[str, tuple[Covers, Callable[..., tuple[Tensor, ...]], Callable[..., tuple[Tensor, ...]]]] = {
    "lac": (covered_by_set("lac"), labelled, constant),
    "aps": (covered_by_set("aps"), labelled, constant),
    "cqr": (covered_by_quantiles, measured, counted),
    "scaled": (covered_by_scaled, measured, counted),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("count", "alpha", "is_tied"), [(6, 0.3, 0), (19, 0.1, 0), (50, 0.2, 0), (19, 0.3, 1)])
@pytest.mark.parametrize("method", METHODS)
def test_coverage_is_within_the_theoretical_bounds(method: str, count: int, alpha: float, is_tied: int) -> None:
    covers, *makers = METHODS[method]
    cases = zip(*(numbers.chunk(CASES) for numbers in makers[is_tied](CASES * (count + 1))), strict=True)
    covered = sum(covers(*case, alpha) for case in cases)
    # Each bound is missed by chance once in 2,000 times at most.
    assert covered >= binom.ppf(5e-4, CASES, 1 - alpha)
    assert covered <= binom.ppf(1 - 5e-4, CASES, 1 - alpha + 1 / (count + 1))


@pytest.mark.parametrize(
    ("count", "alpha", "rank"),
    [(9, 0.1, 9), (8, 0.1, None), (6, 0.1, None), (6, 0.15, 6), (99, 0.42, 58), (1, 0.5, 1), (1, 0.4, None)],
)
def test_the_rank_of_the_threshold_is_exact(count: int, alpha: float, rank: int | None) -> None:
    scores = torch.arange(count, dtype=torch.float64).flip(0)
    found = fit_threshold(scores, torch.zeros(count, dtype=torch.float64), alpha)
    assert found.score == (math.inf if rank is None else rank - 1)


def test_ties_are_broken_at_random() -> None:
    ties = torch.tensor([0.9, 0.1, 0.5, 0.3], dtype=torch.float64)
    assert fit_threshold(torch.zeros(4).double(), ties, 0.5) == Threshold(0.0, 0.5)


@pytest.mark.parametrize("method", SET_METHODS)
def test_with_few_examples_sets_contain_all_classes(method: SetMethod) -> None:
    probs, labels = labelled(6)
    certain = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert fit_sets(method, probs, labels, alpha=0.1)(certain).all()
    mean, sd, targets = measured(6)
    quantiles = fit_quantile_intervals(mean, mean, targets)(mean, mean)
    for ends in (quantiles, fit_scaled_intervals(mean, sd, targets)(mean, sd)):
        assert (ends[0] == -math.inf).all()
        assert (ends[1] == math.inf).all()


@pytest.mark.parametrize("method", SET_METHODS)
def test_a_class_missing_from_the_calibration_labels_can_be_in_a_set(method: SetMethod) -> None:
    probs, labels = labelled(200, wrong=1.0)
    seen = labels != 3
    sets = fit_sets(method, probs[seen], labels[seen], alpha=0.1)
    found = sets(torch.tensor([[0.01, 0.02, 0.01, 0.96], [0.25, 0.25, 0.25, 0.25]]).expand(500, 2, 4).reshape(-1, 4))
    assert found[:, 3].double().mean() > 0.7


def test_lac_has_the_threshold_of_mapie() -> None:
    """``SplitConformalClassifier(..., conformity_score="lac")`` of MAPIE 1.6.0 has these thresholds of 1 − p."""
    right = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.95, 0.85], dtype=torch.float64)
    probs = torch.stack([right, 1 - right], dim=-1)
    labels = torch.zeros(11, dtype=torch.int64)
    thresholds = [1 + fit_sets("lac", probs, labels, alpha).threshold.score for alpha in (0.1, 0.25)]
    assert thresholds == pytest.approx([0.9, 0.7])


def test_aps_scores_accumulate_from_the_most_probable_class() -> None:
    """At a threshold of 0.75, a class that crosses the threshold is included at random."""
    probs = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).expand(4000, 3)
    sets = fit_sets("aps", probs, torch.ones(4000, dtype=torch.int64), 0.1)
    at = type(sets)("aps", 0.1, 3, Threshold(0.65, 1.0), 4000, 0)
    shares = at(probs).double().mean(0)
    assert shares[1] == 1
    assert shares[2] == pytest.approx(0.5, abs=0.04)
    assert shares[0] == 0


def test_sets_depend_on_the_data_and_the_seed_only() -> None:
    probs, labels = labelled(300)
    one, same, other = (fit_sets("aps", probs, labels, 0.1, seed)(probs) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_sets_of_predictions_use_the_mixture() -> None:
    logits = torch.randn(2, 3, 60, 4, generator=torch.Generator().manual_seed(0))
    predictions = Predictions(logits, torch.arange(60) % 4)
    sets = fit_sets_of("lac", predictions, 0.2)
    mixture = fit_sets("lac", logits.double().softmax(-1).mean((0, 1)), predictions.labels, 0.2)
    assert sets.threshold.score == pytest.approx(mixture.threshold.score)
    assert torch.equal(sets.of(predictions), sets(predictions.log_probs.exp()))
    binary = Predictions(logits, torch.zeros(60, 4).long(), likelihood="bernoulli")
    with pytest.raises(InputError, match=r"\.problems\(\)"):
        fit_sets_of("lac", binary)
    assert all(fit_sets_of("aps", problem).of(problem).shape == (60, 2) for problem in binary.problems())


def test_scaled_intervals_of_a_predictive_cover_the_calibration_targets() -> None:
    loc = torch.randn(2, 3, 200, generator=torch.Generator().manual_seed(0)).double()
    predictive = Predictive(torch.distributions.Normal(loc, 0.2))
    targets = predictive.sample(1, torch.Generator().manual_seed(1))[0]
    lower, upper = fit_scaled_intervals(predictive.mean, predictive.variance.sqrt(), targets)(
        predictive.mean, predictive.variance.sqrt()
    )
    rounding = 1e-9  # the example at the rank is at the end of its interval
    assert ((lower - rounding <= targets) & (targets <= upper + rounding)).sum() == 181  # the rank is ⌈201 · 0.9⌉


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: fit_sets("lacc", p, y), "lacc"),
        (lambda p, y: fit_sets("lac", p, y, alpha=1.0), "alpha, .* between 0 and 1, and is 1.0"),
        (lambda p, y: fit_sets("lac", p, y, alpha=math.nan), "and is nan"),
        (lambda p, y: fit_sets("lac", p + 1, y), "do not sum to 1"),
        (lambda p, y: fit_sets("lac", p[:0], y[:0]), "is empty"),
        (lambda p, y: fit_sets("lac", p, y)(p[:, :3] / p[:, :3].sum(-1, keepdim=True)), "with 4 classes, .* have 3"),
        (
            lambda p, y: fit_scaled_intervals(p[:, 0], 0 * p[:, 1], p[:, 2]),
            "standard deviations must be positive, and the smallest is 0",
        ),
        (lambda p, y: fit_quantile_intervals(p[:, 0], p[:9, 1], p[:, 2]), "20 lower quantiles, and 9 upper quantiles"),
        (lambda p, y: fit_quantile_intervals(p[:, 0], p[:, 1] / 0, p[:, 2]), "upper quantiles that are not finite"),
    ],
)
def test_invalid_input_is_rejected(call: Callable[[Tensor, Tensor], object], message: str) -> None:
    probs, labels = labelled(20)
    with pytest.raises(InputError, match=message) as caught:
        call(probs, labels)
    assert "\n" not in str(caught.value)
