import math

import pytest
import torch
from random_predictions import make

from bayes_share.errors import InputError
from bayes_share.evaluation import Predictions, elpd, elpd_differences, log_probs, nll


def terms(predictions: Predictions) -> list[float]:
    """The terms by their definition, image by image."""
    probs = predictions.logits.double().softmax(-1).mean((0, 1))
    return [math.log(probs[image, label]) for image, label in enumerate(predictions.labels.tolist())]


def error(values: list[float]) -> float:
    """``√(n V)``, where the variance V has n - 1 degrees of freedom."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(len(values) * math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def test_elpd_is_the_sum_with_its_standard_error() -> None:
    predictions = make()
    found = elpd(predictions)
    assert found.elpd == pytest.approx(math.fsum(terms(predictions)), rel=1e-12)
    assert found.error == pytest.approx(error(terms(predictions)), rel=1e-10)
    assert found.pointwise.tolist() == pytest.approx(terms(predictions), rel=1e-10)
    assert found.mean == pytest.approx(-nll(log_probs(predictions.logits), predictions.labels), rel=1e-12)


def test_one_image_has_no_error() -> None:
    assert elpd(make(images=1)).error is None


def test_differences_are_paired_and_the_best_is_first() -> None:
    runs = {"a": make(seed=1), "b": make(seed=1), "c": make(seed=1)}
    runs["b"] = Predictions(1.2 * runs["a"].logits, runs["a"].labels)
    runs["c"] = Predictions(3 * runs["a"].logits, runs["a"].labels)
    found = elpd_differences(runs)
    values = {name: terms(run) for name, run in runs.items()}
    assert [one.name for one in found] == sorted(runs, key=lambda name: -math.fsum(values[name]))
    best = values[found[0].name]
    assert (found[0].difference, found[0].error) == (0, 0)
    for one in found[1:]:
        gaps = [own - other for own, other in zip(values[one.name], best, strict=True)]
        assert one.elpd == pytest.approx(math.fsum(values[one.name]))
        assert one.difference == pytest.approx(math.fsum(gaps), rel=1e-9)
        assert one.difference < 0
        assert one.error == pytest.approx(error(gaps), rel=1e-9)
        assert one.error is not None
        assert one.error < elpd(runs[one.name]).error  # pairing takes away what both find hard


def test_the_standard_error_matches_the_spread_over_test_sets() -> None:
    """The standard deviation over many test sets equals the standard error from one of them."""
    probs = torch.tensor([0.6, 0.3, 0.1])
    values, errors = [], []
    for seed in range(400):
        labels = torch.multinomial(probs, 200, replacement=True, generator=torch.Generator().manual_seed(seed))
        found = elpd(Predictions(probs.log().expand(1, 1, 200, 3), labels))
        values.append(found.elpd)
        errors.append(found.error)
    spread = torch.tensor(values).std().item()
    assert sum(errors) / 400 == pytest.approx(spread, rel=3 / (2 * 400) ** 0.5)


def test_predictions_that_cannot_be_compared_are_rejected() -> None:
    with pytest.raises(InputError, match="there are no runs"):
        elpd_differences({})
    with pytest.raises(InputError, match=r"a and b are predictions for different examples: their labels differ"):
        elpd_differences({"a": make(), "b": Predictions(make().logits, make().labels.roll(1))})
    with pytest.raises(InputError, match=r"a and b are predictions for different examples: their labels differ"):
        elpd_differences({"a": make(), "b": make(images=7)})
