"""Risk and coverage against the definition, plain loops and closed forms."""

import itertools

import pytest
import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import risk_coverage

approx = pytest.approx


def random_case(images: int = 60, seed: int = 0, levels: int | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(images, generator=generator)
    if levels is not None:
        confidence = (confidence * levels).floor() / levels
    right = torch.rand(images, generator=generator) < 0.3 + 0.6 * confidence
    return confidence, right


def test_aurc_without_ties_is_the_mean_risk() -> None:
    confidence, right = random_case()
    order = confidence.argsort(descending=True)
    risks = [(~right[order[:n]]).double().mean().item() for n in range(1, 61)]
    found = risk_coverage(confidence, right)
    assert found.coverage.tolist() == approx([n / 60 for n in range(1, 61)], rel=1e-14)
    assert found.risk.tolist() == approx(risks, rel=1e-14)
    assert found.aurc == approx(sum(risks) / 60, rel=1e-13)


@pytest.mark.parametrize("levels", [None, 5, 1])
def test_each_step_matches_a_threshold(levels: int | None) -> None:
    confidence, right = random_case(levels=levels)
    found = risk_coverage(confidence, right)
    thresholds = sorted(set(confidence.tolist()), reverse=True)
    answered = [[r for c, r in zip(confidence.tolist(), right.tolist(), strict=True) if c >= t] for t in thresholds]
    assert found.coverage.tolist() == approx([len(each) / 60 for each in answered], rel=1e-14)
    assert found.risk.tolist() == approx([each.count(False) / len(each) for each in answered], rel=1e-14)
    area, before = 0.0, 0
    for each in answered:
        area += (len(each) - before) / 60 * each.count(False) / len(each)
        before = len(each)
    assert found.aurc == approx(area, rel=1e-13)


def test_the_order_of_ties_does_not_matter() -> None:
    confidence, right = random_case(levels=4)
    found = risk_coverage(confidence, right)
    for seed in range(5):
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        again = risk_coverage(confidence[order], right[order])
        assert torch.equal(again.risk, found.risk)
        assert again.aurc == found.aurc


def test_best_aurc_is_the_minimum_over_all_orders() -> None:
    for wrong in range(6):
        answers = [False] * wrong + [True] * (5 - wrong)
        curves = [
            risk_coverage(torch.arange(5.0), torch.tensor(order)) for order in set(itertools.permutations(answers))
        ]
        least = min(curve.aurc for curve in curves)
        for curve in curves:
            assert curve.best_aurc == approx(least, abs=1e-15)
            assert curve.excess_aurc == approx(curve.aurc - least, abs=1e-15)
            assert curve.excess_aurc >= -1e-15


def test_best_aurc_is_close_to_the_integral_of_geifman() -> None:
    import math

    confidence, right = random_case(images=20_000)
    risk = (~right).double().mean().item()
    expected = risk + (1 - risk) * math.log(1 - risk)  # their approximation for many images
    assert risk_coverage(confidence, right).best_aurc == approx(expected, abs=1e-4)


def test_risk_coverage_of_extreme_cases() -> None:
    confidence = torch.rand(10, generator=torch.Generator().manual_seed(0))
    right = risk_coverage(confidence, torch.ones(10, dtype=torch.bool))
    assert (right.aurc, right.best_aurc, right.excess_aurc, right.coverage_at_risk(0.0)) == (0, 0, 0, 1)
    wrong = risk_coverage(confidence, torch.zeros(10, dtype=torch.bool))
    assert (wrong.aurc, wrong.best_aurc) == approx((1, 1))
    assert wrong.coverage_at_risk(0.99) == 0
    one = risk_coverage(torch.tensor([0.3]), torch.tensor([True]))
    assert (one.coverage.tolist(), one.risk.tolist(), one.aurc) == ([1], [0], 0)


def test_equal_confidences_are_one_step() -> None:
    found = risk_coverage(torch.ones(4), torch.tensor([True, True, False, True]))
    assert (found.coverage.tolist(), found.risk.tolist(), found.aurc) == ([1], [0.25], 0.25)


def test_coverage_at_risk_is_the_largest_coverage() -> None:
    # Wrong at first: the risk falls from 1 to 1/4, and rises again at the end.
    found = risk_coverage(torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), torch.tensor([False, True, True, True, False]))
    assert found.risk.tolist() == approx([1, 1 / 2, 1 / 3, 1 / 4, 2 / 5])
    assert found.coverage_at_risk(0.25) == approx(0.8)
    assert found.coverage_at_risk(0.4) == 1
    assert found.coverage_at_risk(0.2) == 0


def test_infinite_confidences_are_allowed_and_nan_is_rejected() -> None:
    found = risk_coverage(torch.tensor([-torch.inf, torch.inf]), torch.tensor([False, True]))
    assert found.risk.tolist() == [0, 0.5]
    with pytest.raises(InputError, match="confidences that are NaN: 1 of 2, the first at example 1"):
        risk_coverage(torch.tensor([0.0, torch.nan]), torch.tensor([False, True]))


@pytest.mark.usefixtures("unchecked")
def test_different_lengths_are_rejected() -> None:
    with pytest.raises(InputError, match="there are 2 confidences for 3 examples"):
        risk_coverage(torch.zeros(2), torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match=r"the shape \[0\] is empty"):
        risk_coverage(torch.zeros(0), torch.ones(0, dtype=torch.bool))
