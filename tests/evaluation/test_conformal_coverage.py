"""Coverage of conformal sets, the range expected by chance, and the split for temperature and threshold."""

from fractions import Fraction

import pytest
import torch
from scipy.stats import betabinom, binom

from bayes_share.evaluation.conformal import fit_sets_of, halves, set_coverage
from bayes_share.evaluation.conformal.guarantee import range_of_coverage, verdict
from bayes_share.evaluation.conformal.threshold import rank_of
from bayes_share.evaluation.posthoc import fit_calibration
from bayes_share.evaluation.predictions import Predictions


def overconfident(count: int, seed: int = 0) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
    return Predictions(4 * logits[None, None], labels)


def test_coverage_is_counted_in_each_group() -> None:
    sizes = [0, 1, 1, 4, 7, 9, 12]
    sets = torch.arange(12) < torch.tensor(sizes)[:, None]
    labels = torch.tensor([0, 0, 1, 3, 8, 8, 11])
    found = set_coverage(sets, labels)
    assert found.size.value == pytest.approx(sum(sizes) / 7)
    assert found.size.low < found.size.value < found.size.high
    assert (found.overall.count, found.overall.coverage.value) == (7, pytest.approx(4 / 7))
    of_classes = {label: (group.count, group.coverage.value) for label, group in found.by_class.items()}
    assert of_classes == {0: (2, 0.5), 1: (1, 0.0), 3: (1, 1.0), 8: (2, 0.5), 11: (1, 1.0)}
    of_sizes = {size: (group.count, group.coverage.value) for size, group in found.by_size.items()}
    assert of_sizes == {"0": (1, 0.0), "1": (2, 0.5), "4": (1, 1.0), "5–10": (2, 0.5), "11–100": (1, 1.0)}


def test_the_coverage_interval_is_clopper_pearson() -> None:
    """The interval for 0 of 10 is from 0 to 1 − 0.025^(1/10)."""
    found = set_coverage(torch.zeros(10, 2, dtype=torch.bool), torch.zeros(10, dtype=torch.int64)).overall.coverage
    assert (found.low, found.high) == (0.0, pytest.approx(1 - 0.025**0.1))


def test_temperature_and_threshold_use_disjoint_examples() -> None:
    whole = overconfident(401)
    parts = halves(whole)
    logits = parts.held_apart.logits[0, 0]
    held = (whole.logits[0, 0][:, None] == logits).all(-1).any(1)
    assert held.sum() == len(logits) == 200
    rest = Predictions(whole.logits[:, :, ~held], whole.labels[~held])
    assert parts.temperature is not None
    assert parts.temperature.map == fit_calibration("temperature", rest).map
    test = overconfident(2000, seed=1)
    for method in ("lac", "aps"):
        assert set_coverage(parts.sets(method, test), test.labels).overall.coverage.value == pytest.approx(
            0.9, abs=0.05
        )
    assert not torch.equal(halves(whole, seed=1).held_apart.labels, parts.held_apart.labels)


def test_with_few_examples_all_are_used_for_the_threshold() -> None:
    few = overconfident(6)
    parts = halves(few)
    assert parts.temperature is None
    assert parts.held_apart is few
    assert parts.sets("lac", overconfident(50)).all()
    assert torch.equal(parts.sets("aps", few, 0.5), fit_sets_of("aps", few, 0.5).of(few))


def test_no_temperature_is_fitted_to_a_single_class() -> None:
    whole = overconfident(60)
    parts = halves(Predictions(whole.logits, torch.zeros(60, dtype=torch.int64)))
    assert parts.temperature is None
    assert len(parts.held_apart.labels) == 30


@pytest.mark.parametrize(
    ("alpha", "calibrated", "tested"),
    [(0.1, 37, 74), (0.05, 50, 200), (0.1, 1000, 2000), (0.3, 19, 1), (0.1, 9, 10), (0.2, 4, 50)],
)
def test_the_range_of_coverage_includes_the_variation_of_calibration_examples(
    alpha: float, calibrated: int, tested: int
) -> None:
    missed = int(Fraction(str(alpha)) * (calibrated + 1))
    of_both = betabinom(tested, calibrated + 1 - missed, missed)
    found = range_of_coverage(alpha, calibrated, tested)
    assert (found.low, found.high) == pytest.approx(tuple(of_both.ppf([0.025, 0.975]) / tested))
    of_one = range_of_coverage(alpha, None, tested)
    assert (of_one.low, of_one.high) == pytest.approx(tuple(binom(tested, 1 - alpha).ppf([0.025, 0.975]) / tested))
    assert found.low <= of_one.low


def test_the_range_is_1_if_sets_contain_all_classes() -> None:
    found = range_of_coverage(0.1, 8, 10)
    assert (found.low, found.high) == (1.0, 1.0)


def test_the_range_holds_95_percent_of_simulated_coverages() -> None:
    """Over 4,000 simulations with 37 calibration and 74 test scores, the range holds at least about 95 %."""
    generator = torch.Generator().manual_seed(0)
    scores, more = (torch.rand(4000, count, generator=generator).double() for count in (37, 74))
    thresholds = scores.sort(1).values[:, rank_of(0.1, 37) - 1 : rank_of(0.1, 37)]
    coverages = (more <= thresholds).double().mean(1)
    wanted = range_of_coverage(0.1, 37, 74)
    share = ((coverages >= wanted.low) & (coverages <= wanted.high)).double().mean().item()
    assert 0.94 < share < 0.98
    assert "Every conformal coverage is within the range expected if the guarantee holds." in verdict(
        [("90 %", 0.83, wanted)]
    )
    assert "70.3 %, below 79.7 %" in verdict([("90 %", 52 / 74, wanted)])
