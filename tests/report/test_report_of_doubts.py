"""The report on calibration, selective prediction and uncertainty, against brute force."""

import numpy as np
import pytest
from scipy import optimize, special, stats

from bayes_share.reports.document import Report, Table
from bayes_share.reports.results import Result


def row(report: Report, name: str, run: Result) -> dict:
    table = next(table for table in report.blocks(Table) if table.name == name)
    return {key: cell.value for key, cell in next(row for row in table.rows if row["run"].value == run.name).items()}


def components(run: Result) -> np.ndarray:
    """Probabilities ``[component, image, class]``."""
    return special.softmax(run.test.logits.double().flatten(0, 1).numpy(), axis=-1)


def test_the_temperature_is_fitted_to_validation_images_only(report: Report, runs: list[Result]) -> None:
    for run in runs:
        logs, labels = {}, {}
        for part, of in (("validation", run.validation), ("test", run.test)):
            probs = special.softmax(of.logits.double().flatten(0, 1).numpy(), axis=-1).mean(0)
            logs[part], labels[part] = np.log(probs), of.labels.numpy()

        def nll(slope: float, part: str, logs: dict = logs, labels: dict = labels) -> float:
            found = special.log_softmax(slope * logs[part], axis=-1)
            return -found[np.arange(len(found)), labels[part]].mean()

        fitted = {part: optimize.minimize_scalar(nll, (0.1, 10), args=(part,)).x for part in logs}
        found = row(report, "posthoc-nll", run)
        assert found["none"] == pytest.approx(nll(1.0, "test"))
        assert found["temperature"] == pytest.approx(nll(fitted["validation"], "test"), rel=1e-4)
        assert nll(fitted["test"], "test") < found["temperature"] - 1e-5  # what a fit to the test images would give


def test_images_are_answered_in_order_of_confidence(report: Report, runs: list[Result]) -> None:
    for run in runs:
        probs = components(run).mean(0)
        wrong = (probs.argmax(-1) != run.test.labels.numpy())[np.argsort(-probs.max(-1))]
        risks = wrong.cumsum() / np.arange(1, len(wrong) + 1)
        found = row(report, "selective", run)
        assert found["aurc"] == pytest.approx(risks.mean())
        assert found["excess_aurc"] == pytest.approx(
            risks.mean() - (np.sort(wrong).cumsum() / np.arange(1, len(wrong) + 1)).mean()
        )
        below = np.nonzero(risks <= 0.05)[0]
        assert found["coverage_0.05"] == pytest.approx((below[-1] + 1) / len(wrong))


def test_uncertainty_is_shown_for_right_and_wrong_predictions(report: Report, runs: list[Result]) -> None:
    for run in runs:
        each = components(run)
        mixture = each.mean(0)
        entropy, expected = stats.entropy(mixture, axis=-1), stats.entropy(each, axis=-1).mean(0)
        is_right = mixture.argmax(-1) == run.test.labels.numpy()
        found = row(report, "uncertainty", run)
        for part, chosen in (("right", is_right), ("wrong", ~is_right)):
            assert found[f"entropy_{part}"] == pytest.approx(entropy[chosen].mean())
            assert found[f"expected_entropy_{part}"] == pytest.approx(expected[chosen].mean())
            if len(each) > 1:
                assert found[f"mutual_information_{part}"] == pytest.approx((entropy - expected)[chosen].mean())
        assert ("variation_ratio_right" in found) == (len(each) > 1)


def test_mutual_information_is_the_mean_divergence_of_members(report: Report, runs: list[Result]) -> None:
    each = components(runs[1])
    pairs = [stats.entropy(each[i], each[j], axis=-1).mean() for i in range(3) for j in range(3) if i != j]
    assert row(report, "members", runs[1])["kl"] == pytest.approx(np.mean(pairs))
