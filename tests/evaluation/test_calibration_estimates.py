"""The debiased squared calibration error, and the interval of the ECE, against formulas and known populations."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import Predictions, ece, ece_interval, paired_differences, squared_calibration_error
from bayes_share.evaluation.calibration_estimates import squared_error_terms


def sample(confidence: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of two classes, and labels that are 0, the predicted class, with probability `truth`."""
    labels = (torch.rand(len(truth), dtype=torch.float64) >= truth).long()
    return torch.stack([confidence, 1 - confidence], dim=1), labels


def test_the_squared_error_equals_the_formula_of_kumar() -> None:
    """The sum over bins of share · (gap² − variance of the gap)."""
    confidence = 0.5 + 0.5 * torch.rand(300, dtype=torch.float64)
    probs, labels = sample(confidence, confidence**2)
    residual, expected = (labels == 0).double() - confidence, 0.0
    for low in range(15):
        own = residual[(confidence > low / 15) & (confidence <= (low + 1) / 15)].numpy()
        if len(own) > 1:
            expected += len(own) / 300 * (own.mean() ** 2 - stats.sem(own) ** 2)
    assert squared_calibration_error(probs, labels) == pytest.approx(expected, rel=1e-10)


def test_an_image_alone_in_its_bin_contributes_0() -> None:
    probs = torch.tensor([[0.95, 0.05], [0.7, 0.3]])
    assert squared_calibration_error(probs, torch.tensor([1, 0])) == 0


@pytest.mark.parametrize("power", [1.0, 1.5])
def test_the_squared_error_is_unbiased_and_its_standard_error_is_right(power: float) -> None:
    """The accuracy is a power of the confidence. With one bin, the population error is an integral."""
    found, errors = [], []
    for _ in range(400):
        confidence = 0.5 + 0.5 * torch.rand(100, dtype=torch.float64)
        terms = squared_error_terms(*sample(confidence, confidence**power), bins=1)
        found.append(terms.mean().item())
        errors.append(terms.std().item() / 10)
    gap = (1 - 0.5 ** (power + 1)) / (power + 1) * 2 - 0.75
    spread, error = stats.tstd(found), math.sqrt(sum(error**2 for error in errors) / 400)
    assert abs(sum(found) / 400 - gap**2) < 4 * spread / math.sqrt(400)
    most = math.sqrt(2) if power == 1 else 1.25  # conservative where there is no error
    assert 0.9 < error / spread < 1.1 * most


def test_the_ece_interval_covers_0_for_a_calibrated_classifier() -> None:
    """For 500 images of a calibrated classifier the ECE is 0, and the plug-in estimate is about 0.06."""
    covered, values = 0, []
    for _ in range(100):
        confidence = 0.5 + 0.5 * torch.rand(500, dtype=torch.float64)
        found = ece_interval(*sample(confidence, confidence))
        covered += found.low <= 0 <= found.high
        values.append(found.value)
    assert min(values) > 0.01
    assert covered / 100 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 100)


@pytest.mark.parametrize(("images", "gap"), [(500, 0.03), (500, 0.1), (5000, 0.1)])
def test_the_ece_interval_covers_the_ece_of_an_overconfident_classifier(images: int, gap: float) -> None:
    covered = 0
    for _ in range(100):
        confidence = 0.7 + 0.3 * torch.rand(images, dtype=torch.float64)
        found = ece_interval(*sample(confidence, confidence - gap))
        covered += found.low <= gap <= found.high
        assert found.low <= found.value <= found.high
    assert covered / 100 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 100)


def test_the_ece_interval_is_not_empty_if_all_images_are_certain_and_right() -> None:
    """For 100 certain and right predictions, the upper end is Wilson's bound for 0 errors of 100."""
    found = ece_interval(torch.tensor([[1.0, 0.0]]).expand(100, 2), torch.zeros(100, dtype=torch.int64))
    assert (found.value, found.low) == (0, 0)
    wilson = stats.binomtest(0, 100).proportion_ci(0.95, method="wilson")
    assert found.high == pytest.approx(wilson.high, rel=1e-5)


def test_the_same_predictions_have_the_same_interval() -> None:
    confidence = 0.5 + 0.5 * torch.rand(50, dtype=torch.float64)
    probs, labels = sample(confidence, confidence)
    assert ece_interval(probs, labels) == ece_interval(probs, labels)
    assert ece_interval(probs, labels).value == pytest.approx(ece(probs, labels))
    with pytest.raises(InputError, match="at least one bin"):
        ece_interval(probs, labels, bins=0)


def test_two_calibrated_classifiers_do_not_differ_in_squared_error() -> None:
    """A difference of plug-in ECEs favours the more accurate one in most trials; the squared error in hardly any."""
    clear, larger, trials = 0, 0, 60
    for _ in range(trials):
        # Of one image, class 0 is as probable to both as they say: the second knows more.
        weak, strong = (
            0.5 + 0.2 * torch.rand(500, dtype=torch.float64),
            0.9 + 0.1 * torch.rand(500, dtype=torch.float64),
        )
        runs = []
        for confidence in (weak, strong):
            right = torch.rand(500, dtype=torch.float64) < confidence
            other = 1 - confidence
            probs = torch.where(
                right[:, None], torch.stack([confidence, other], 1), torch.stack([other, confidence], 1)
            )
            runs.append(Predictions(probs.log().float()[None, None], torch.zeros(500, dtype=torch.int64)))
        eces = [ece(run.log_probs.exp(), run.labels) for run in runs]
        larger += eces[0] > eces[1]
        clear += paired_differences(*runs)["squared_calibration_error"].is_clear()
    assert larger > 0.6 * trials
    assert clear <= 0.05 * trials + 3 * math.sqrt(0.05 * 0.95 * trials)
