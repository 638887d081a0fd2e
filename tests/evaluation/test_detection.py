"""Detection metrics against scikit-learn, brute force and known cases."""

import math
from itertools import product

import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.detection import Detection, detection, detection_intervals


def brute_force(score_in: Tensor, score_out: Tensor) -> Detection:
    inside, outside = score_in.double().tolist(), score_out.double().tolist()
    pairs = [1.0 if o > i else 0.5 if o == i else 0.0 for i, o in product(inside, outside)]
    accepting = [t for t in inside if sum(i <= t for i in inside) >= 0.95 * len(inside) - 1e-9]
    threshold = min(accepting)
    is_out = [0] * len(inside) + [1] * len(outside)
    scores = [*inside, *outside]
    return Detection(
        auroc=sum(pairs) / len(pairs),
        aupr_in=average_precision_score([1 - label for label in is_out], [-score for score in scores]),
        aupr_out=average_precision_score(is_out, scores),
        fpr95=sum(o <= threshold for o in outside) / len(outside),
    )


def close(found: Detection, expected: Detection) -> bool:
    pairs = [(getattr(found, name), getattr(expected, name)) for name in ("auroc", "aupr_in", "aupr_out", "fpr95")]
    return all(math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-12) for one, other in pairs)


@pytest.mark.parametrize("decimals", [15, 1, 0])
@pytest.mark.parametrize("sizes", [(200, 300), (20, 20), (19, 21), (1, 5), (5, 1), (1, 1), (100, 7)])
def test_detection_agrees_with_brute_force_with_and_without_ties(sizes: tuple[int, int], decimals: int) -> None:
    rng = torch.Generator().manual_seed(sum(sizes) + decimals)
    score_in = torch.randn(sizes[0], generator=rng, dtype=torch.float64).round(decimals=decimals)
    score_out = torch.randn(sizes[1], generator=rng, dtype=torch.float64).round(decimals=decimals) + 1
    found = detection(score_in, score_out)
    assert close(found, brute_force(score_in, score_out)), (found, brute_force(score_in, score_out))
    labels = [0] * sizes[0] + [1] * sizes[1]
    assert found.auroc == pytest.approx(roc_auc_score(labels, torch.cat([score_in, score_out])), abs=1e-12)


def test_perfect_separation_gives_the_best_and_its_reverse_the_worst_values() -> None:
    low, high = torch.arange(20.0), torch.arange(30.0) + 100
    assert detection(low, high) == Detection(1.0, 1.0, 1.0, 0.0)
    reverse = detection(high, low)
    assert (reverse.auroc, reverse.fpr95) == (0.0, 1.0)
    assert close(reverse, brute_force(high, low))


def test_equal_scores_are_chance() -> None:
    found = detection(torch.zeros(30), torch.zeros(10))
    assert found == Detection(0.5, 0.75, 0.25, 1.0)


@pytest.mark.parametrize(
    ("count", "threshold"), [(100, 95), (20, 19), (19, 19), (21, 20), (1, 1), (40, 38), (2000, 1900)]
)
def test_the_threshold_accepts_the_smallest_share_of_at_least_95_percent(count: int, threshold: int) -> None:
    score_in = torch.arange(1.0, count + 1)
    fpr = detection(score_in, torch.tensor([threshold - 0.5, threshold, threshold + 0.5])).fpr95
    assert fpr == pytest.approx(2 / 3)  # a tie with the threshold is accepted, too


def test_integers_and_half_precision_are_exact_in_float64() -> None:
    score_in, score_out = torch.tensor([1.0, 2.0], dtype=torch.float16), torch.tensor([1.5, 3.0])
    assert detection(score_in, score_out).auroc == 0.75
    near = torch.tensor([1.0, 1.0 + 2**-40], dtype=torch.float64)
    assert detection(near[:1], near[1:]).auroc == 1


def test_negating_the_score_swaps_the_two_sets() -> None:
    rng = torch.Generator().manual_seed(0)
    one, other = torch.randn(50, generator=rng), torch.randn(70, generator=rng)
    forward, back = detection(one, other), detection(-other, -one)
    assert forward.auroc == pytest.approx(back.auroc)
    assert forward.aupr_in == pytest.approx(back.aupr_out)


@pytest.mark.parametrize(
    ("score_in", "score_out", "words"),
    [
        (
            torch.tensor([0.0, math.nan]),
            torch.zeros(3),
            "in-distribution images that are not finite: 1 of 2, the first",
        ),
        (torch.zeros(3), torch.tensor([0, 1, math.inf]), "out-of-distribution images that are not finite: 1 of 3, the"),
        (torch.zeros(0), torch.zeros(3), "scores of in-distribution images must have the axes [example]"),
        (torch.zeros(3), torch.zeros(0), "scores of out-of-distribution images must have the axes [example]"),
    ],
)
def test_invalid_scores_are_rejected_with_their_position(score_in: Tensor, score_out: Tensor, words: str) -> None:
    for function in (detection, detection_intervals):
        with pytest.raises(InputError) as caught:
            function(score_in, score_out)
        assert words in str(caught.value)


def test_fewer_than_2_resamples_are_rejected() -> None:
    with pytest.raises(InputError, match="at least 2 resamples, not 1"):
        detection_intervals(torch.zeros(3), torch.ones(3), resamples=1)


def test_auroc_interval_has_the_standard_error_of_hanley_and_mcneil() -> None:
    """Hanley and McNeil (1982), equation 1, gives the standard error of an AUROC of normal scores."""
    rng = torch.Generator().manual_seed(3)
    score_in, score_out = torch.randn(400, generator=rng), torch.randn(300, generator=rng) + 1
    found = detection_intervals(score_in, score_out, resamples=500)
    whole = detection(score_in, score_out)
    for name, interval in found.items():
        assert interval.value == getattr(whole, name)
        assert interval.low <= interval.value <= interval.high
    area = whole.auroc
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + 299 * (first - area**2) + 399 * (second - area**2)
    assert found["auroc"].error == pytest.approx((variance / (300 * 400)) ** 0.5, rel=0.15)
    assert found["auroc"].high - found["auroc"].low == pytest.approx(2 * 1.96 * found["auroc"].error, rel=0.15)
    assert found == detection_intervals(score_in, score_out, resamples=500)
    assert found != detection_intervals(score_in, score_out, resamples=500, seed=1)


def test_perfect_separation_has_an_auroc_interval_of_width_0() -> None:
    interval = detection_intervals(torch.zeros(5), torch.ones(5))["auroc"]
    assert (interval.value, interval.low, interval.high, interval.error) == (1, 1, 1, 0)
