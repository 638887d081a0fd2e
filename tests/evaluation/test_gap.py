"""The share of a gap that is closed, and its bootstrap interval over seeds."""

import math
from itertools import product
from statistics import fmean

import pytest
import torch

from bayes_share.errors import InputError
from bayes_share.evaluation.gap import coverage, share_of_gap


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


SINGLE, DEEP, METHOD = by_seed(1.5, 1.7, 1.6), by_seed(1.0, 1.1, 1.2), by_seed(1.2, 1.6, 1.1)


def test_the_share_is_the_ratio_of_means_not_the_mean_of_ratios() -> None:
    found = share_of_gap(SINGLE, DEEP, METHOD)
    assert found is not None
    assert found.value == pytest.approx((4.8 - 3.9) / (4.8 - 3.3), rel=1e-12)
    assert found.value != pytest.approx(fmean([0.3 / 0.5, 0.1 / 0.6, 0.5 / 0.4]), abs=0.01)
    assert found.seeds == 3


def test_one_network_has_a_share_of_0_and_the_deep_ensemble_a_share_of_1() -> None:
    for method, value in ((SINGLE, 0.0), (DEEP, 1.0)):
        found = share_of_gap(SINGLE, DEEP, method)
        assert found is not None
        assert found.interval is not None
        assert (found.value, found.interval.low, found.interval.high) == (value, value, value)


def test_the_interval_for_few_seeds_enumerates_all_resamples() -> None:
    ratios = []
    for drawn in product(range(3), repeat=3):
        one, deep, method = (fmean(of[seed] for seed in drawn) for of in (SINGLE, DEEP, METHOD))
        ratios.append((one - method) / (one - deep))
    found = share_of_gap(SINGLE, DEEP, METHOD)
    assert found is not None
    assert found.interval is not None
    assert found.interval.low == pytest.approx(min(ratios), rel=1e-12)  # 1 of 27 is more than 2.5 %
    assert found.interval.high == pytest.approx(max(ratios), rel=1e-12)
    assert found.interval.low == pytest.approx(0.1 / 0.6, rel=1e-9)  # the seeds' own ratios
    assert found.interval.high == pytest.approx(0.5 / 0.4, rel=1e-9)


def test_effects_of_a_seed_on_all_scores_cancel() -> None:
    shifts = [0.0, 5.0, -3.0, 8.0]
    moved = [by_seed(*(base + shift for shift in shifts)) for base in (2.0, 1.0, 1.25)]
    found = share_of_gap(*moved)
    assert found is not None
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((0.75, 0.75), abs=1e-9)


def test_there_is_no_share_without_a_clear_gap() -> None:
    assert share_of_gap(DEEP, SINGLE, METHOD) is None
    assert share_of_gap(by_seed(1.5, 1.0, 1.6), by_seed(1.0, 1.1, 1.2), METHOD) is None  # one seed's gap is below 0
    assert share_of_gap(by_seed(1.0), by_seed(1.0), by_seed(2.0)) is None
    assert share_of_gap({0: 1.0}, {1: 0.5}, {0: 1.0, 1: 0.7}) is None


def test_only_common_seeds_count_and_a_single_seed_has_no_interval() -> None:
    found = share_of_gap(SINGLE, {**DEEP, 7: 0.1}, {1: 1.6, 7: 9.0})
    assert found is not None
    assert found.value == pytest.approx(0.1 / 0.6)
    assert (found.interval, found.seeds) == (None, 1)


def test_invalid_scores_are_rejected() -> None:
    with pytest.raises(InputError, match="finite scores"):
        share_of_gap(SINGLE, DEEP, by_seed(math.nan, 1.0, 1.0))
    with pytest.raises(InputError, match="the confidence must be between 0 and 1, and is"):
        share_of_gap(SINGLE, DEEP, METHOD, confidence=1.0)


@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_intervals_cover_the_truth_about_as_often_as_coverage_says(seeds: int) -> None:
    rng, repeats, truth = torch.Generator().manual_seed(0), 400, 0.6
    held = 0
    for _ in range(repeats):
        common, own = torch.randn(seeds, generator=rng), torch.randn((3, seeds), generator=rng)
        scores = torch.tensor([2.0, 1.0, 2.0 - truth])[:, None] + 0.3 * common + 0.08 * own
        found = share_of_gap(*(by_seed(*row) for row in scores.tolist()), resamples=1000)
        assert found is not None
        assert found.interval is not None
        held += found.interval.low <= truth <= found.interval.high
    expected = coverage(seeds)
    assert held / repeats == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / repeats) + 0.02)
