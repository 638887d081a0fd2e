"""Post-hoc calibration against brute force, netcal, and classifiers with known miscalibration."""

import subprocess
import sys
import warnings
from typing import Any, get_args

import numpy as np
import pytest
import torch
from random_predictions import make
from scipy.optimize import minimize_scalar
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import CALIBRATIONS, Predictions, accuracy, calibrate, ece, fit_calibration, log_probs, nll
from bayes_share.evaluation.posthoc import CalibrationMethod, Pooling

METHOD = pytest.mark.parametrize("method", CALIBRATIONS)
POOLING = pytest.mark.parametrize("pooling", get_args(Pooling))
SMOOTH = ("temperature", "vector", "beta")


def honest(images: int, classes: int = 5, seed: int = 0, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities of a perfectly calibrated classifier, and labels drawn from them."""
    source = torch.Generator().manual_seed(seed)
    probs = (spread * torch.randn(images, classes, generator=source)).softmax(-1)
    return probs.log(), torch.multinomial(probs, 1, generator=source).squeeze(1)


def flawed(images: int = 2000, temperature: float = 3.0, classes: int = 5, seed: int = 0) -> Predictions:
    """A classifier whose logits are too large by the factor `temperature`."""
    logits, labels = honest(images, classes, seed)
    return Predictions(temperature * logits[None, None], labels)


def temperature_of(calibration: Any) -> float:
    return calibration.map.temperature


def nll_of(predictions: Predictions) -> float:
    return nll(log_probs(predictions.logits), predictions.labels)


def standard_error(log_p: Tensor, labels: Tensor) -> float:
    """The standard error of the slope 1 / T at 1, by the Fisher information: the variance of log p under p."""
    probs = log_p.double().exp()
    variance = (probs * log_p.square()).sum(-1) - (probs * log_p).sum(-1).square()
    return float(variance.sum()) ** -0.5


def test_the_names_of_the_methods() -> None:
    assert CALIBRATIONS == ("temperature", "vector", "beta", "histogram", "isotonic")


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("factor", [1e-4, 0.3, 1.0, 3.0, 30.0])
def test_the_temperature_minimises_the_nll(classes: int, factor: float) -> None:
    predictions = flawed(500, factor, classes)
    logits = predictions.logits[0, 0].double()

    def loss(log_t: float) -> float:
        return nll((logits / np.exp(log_t)).log_softmax(-1), predictions.labels)

    brute = minimize_scalar(loss, bounds=(-11, 7), method="bounded", options={"xatol": 1e-9})
    found = fit_calibration("temperature", predictions)
    assert temperature_of(found) == pytest.approx(np.exp(brute.x), rel=1e-4)  # there is a ridge of 1e-6
    assert nll_of(found(predictions)) == pytest.approx(brute.fun, rel=1e-6)


def test_vector_scaling_of_almost_uniform_predictions_is_as_good_as_of_others() -> None:
    ordinary, small = flawed(500, 1.0), flawed(500, 1e-4)
    expected = nll_of(fit_calibration("vector", ordinary)(ordinary))
    assert nll_of(fit_calibration("vector", small)(small)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("factor", [0.5, 3.0, 20.0])
def test_a_known_temperature_is_recovered_within_its_standard_error(factor: float) -> None:
    logits, labels = honest(4000, 10)
    error = standard_error(logits, labels)
    assert error < 0.03
    found = temperature_of(fit_calibration("temperature", flawed(4000, factor, 10)))
    assert abs(factor / found - 1) < 3 * error


@METHOD
@POOLING
def test_every_method_corrects_an_overconfident_classifier(method: CalibrationMethod, pooling: Pooling) -> None:
    validation, test = flawed(4000, seed=1), flawed(4000, seed=2)
    calibrated = calibrate(method, validation, test, pooling)
    best, labels = honest(4000, seed=2)
    probs = [log_probs(found.logits).exp() for found in (test, calibrated)]
    assert ece(probs[0], labels) > 0.15
    assert ece(probs[1], labels) < 0.04
    # The gap to the truth, in units of the standard error of the mean difference; a histogram, whose bins are coarse,
    # comes to 0.13 from 0.52.
    gap = (log_probs(calibrated.logits) - best.double())[range(4000), labels]
    allowed = 3 * float(gap.std()) / 4000**0.5 + (0.001 if method in SMOOTH else 0.15)
    assert -float(gap.mean()) < allowed
    assert nll_of(test) > nll_of(calibrated) + (0.4 if method in SMOOTH else 0.2)


@METHOD
@POOLING
def test_a_calibrated_classifier_is_hardly_changed(method: CalibrationMethod, pooling: Pooling) -> None:
    validation, test = flawed(4000, 1.0, seed=3), flawed(2000, 1.0, seed=4)
    calibrated = calibrate(method, validation, test, pooling)
    before, after = (log_probs(found.logits).exp() for found in (test, calibrated))
    allowed = 0.03 if method in SMOOTH else 0.2  # a 0 that comes costs 87 nats
    assert float((before - after).abs().mean()) < 0.03
    assert abs(accuracy(before, test.labels) - accuracy(after, test.labels)) < 0.02
    assert abs(nll_of(calibrated) - nll_of(test)) < allowed


@POOLING
@pytest.mark.parametrize("factor", [0.1, 5.0, 50.0])
def test_temperature_scaling_preserves_the_order_of_classes(pooling: Pooling, factor: float) -> None:
    validation, test = flawed(300, factor), flawed(300, factor, seed=1)
    calibrated = calibrate("temperature", validation, test, pooling)
    assert torch.equal(calibrated.logits.argsort(-1), test.logits.argsort(-1))


@METHOD
def test_pooling_determines_the_components_of_the_result(method: CalibrationMethod) -> None:
    validation, test = make(2, 3, 600, seed=1), make(2, 3, 100, seed=2)
    before, after = (calibrate(method, validation, test, pooling) for pooling in get_args(Pooling))
    assert before.logits.shape == (1, 1, 100, 5)
    assert after.logits.shape == (2, 3, 100, 5)
    for found in (before, after):
        assert torch.equal(found.labels, test.labels)
        assert found.logits.isfinite().all()
        torch.testing.assert_close(found.logits.exp().sum(-1), torch.ones(found.logits.shape[:-1]))
    # "before" is the same map of the mixture alone.
    mixture = [Predictions(log_probs(of.logits).float()[None, None], of.labels) for of in (validation, test)]
    torch.testing.assert_close(calibrate(method, *mixture).logits, before.logits, rtol=1e-3, atol=1e-3)


@METHOD
def test_pooling_after_applies_one_map_to_each_component(method: CalibrationMethod) -> None:
    validation, test = make(2, 3, 400, seed=1), make(2, 3, 50, seed=2)
    calibration = fit_calibration(method, validation, "after")
    together = calibration(test)
    for draw in range(2):
        for member in range(3):
            alone = calibration(Predictions(test.logits[draw, member][None, None], test.labels))
            assert torch.equal(alone.logits[0, 0], together.logits[draw, member])
    # Fitted on all of them: as if they were six times as many images.
    flat = Predictions(validation.logits.flatten(0, 2)[None, None], validation.labels.repeat(6))
    torch.testing.assert_close(fit_calibration(method, flat)(test).logits, calibrate(method, flat, test).logits)
    one = Predictions(test.logits[:1, :1], test.labels)
    torch.testing.assert_close(fit_calibration(method, flat)(one).logits, calibration(one).logits, rtol=1e-3, atol=1e-4)


def test_calibrating_before_is_more_confident_than_after() -> None:
    """Averaging calibrated components makes the mixture underconfident (Rahaman and Thiery 2021)."""
    validation, test = make(1, 4, 3000, seed=1), make(1, 4, 3000, seed=2)
    before, after = (calibrate("temperature", validation, test, pooling) for pooling in get_args(Pooling))
    probs = [log_probs(found.logits).exp() for found in (before, after)]
    assert probs[0].max(-1).values.mean() > probs[1].max(-1).values.mean() + 0.05
    assert ece(probs[0], test.labels) < 0.06
    assert ece(probs[1], test.labels) > 0.08


@METHOD
def test_test_labels_are_not_used(method: CalibrationMethod) -> None:
    validation, test = make(images=300), make(images=100, seed=1)
    other = Predictions(test.logits, test.labels.roll(1))
    assert torch.equal(calibrate(method, validation, test).logits, calibrate(method, validation, other).logits)


@METHOD
@POOLING
@pytest.mark.parametrize("seen", [(0, 1, 2, 4), (1, 3)])
def test_classes_missing_from_validation_keep_their_probability(
    method: CalibrationMethod, pooling: Pooling, seen: tuple[int, ...]
) -> None:
    validation = make(2, 1, 600)
    is_seen = torch.isin(validation.labels, torch.tensor(seen))
    validation = Predictions(validation.logits[:, :, is_seen], validation.labels[is_seen])
    test = make(2, 1, 80, seed=1)
    calibrated = calibrate(method, validation, test, pooling)
    assert calibrated.logits.isfinite().all()
    torch.testing.assert_close(calibrated.logits.exp().sum(-1), torch.ones(calibrated.logits.shape[:-1]))
    if method != "temperature":
        unseen = [k for k in range(5) if k not in seen]
        of_test = log_probs(test.logits) if pooling == "before" else test.logits.double().log_softmax(-1)
        torch.testing.assert_close(
            calibrated.logits[..., unseen].double(),
            of_test[..., unseen].expand(*calibrated.logits.shape[:-1], -1),
            rtol=1e-5,
            atol=1e-5,
        )


@METHOD
@POOLING
def test_two_classes_can_be_calibrated(method: CalibrationMethod, pooling: Pooling) -> None:
    validation, test = flawed(3000, classes=2, seed=1), flawed(3000, classes=2, seed=2)
    calibrated = calibrate(method, validation, test, pooling)
    assert ece(log_probs(test.logits).exp(), test.labels) > 0.08
    assert ece(log_probs(calibrated.logits).exp(), test.labels) < 0.03
    assert nll_of(calibrated) < nll_of(test) - 0.05


@METHOD
def test_one_test_image_can_be_calibrated(method: CalibrationMethod) -> None:
    test = make(images=1)
    calibrated = calibrate(method, make(images=300), test)
    assert calibrated.logits.shape == (1, 1, 1, 5)
    many = calibrate(method, make(images=300), Predictions(test.logits.expand(-1, -1, 7, -1), test.labels.expand(7)))
    torch.testing.assert_close(calibrated.logits[0, 0, 0], many.logits[0, 0, 3])


@METHOD
@pytest.mark.parametrize("is_right", [True, False])
def test_maps_are_finite_if_all_predictions_are_right_or_wrong(method: CalibrationMethod, is_right: bool) -> None:
    predictions = make(1, 1, 200)
    shift = 0 if is_right else 1
    sure = torch.nn.functional.one_hot((predictions.labels + shift) % 5, 5).float() * 100
    predictions = Predictions(sure[None, None], predictions.labels)
    calibrated = calibrate(method, predictions, predictions)
    assert calibrated.logits.isfinite().all()
    assert nll_of(calibrated) < (0.01 if is_right else 1.7)


@pytest.mark.parametrize("method", ["histogram", "isotonic"])
def test_a_probability_of_0_has_a_finite_log(method: CalibrationMethod) -> None:
    validation, test = flawed(300, seed=1), flawed(300, seed=2)
    calibrated = calibrate(method, validation, test)
    assert calibrated.logits.isfinite().all()
    assert calibrated.logits.min() < -80


def quietly(estimator: Any, probs: Tensor, labels: Tensor, store: Any) -> Any:
    """Fit with netcal, without its warnings, and restore Pyro's parameter store."""
    with warnings.catch_warnings(), store.scope():
        warnings.simplefilter("ignore")
        return estimator.fit(probs.numpy(), labels.numpy(), tensorboard=False)


@pytest.mark.parametrize("classes", [3, 6])
def test_maps_agree_with_netcal_without_clipping(classes: int) -> None:
    from netcal.binning import HistogramBinning, IsotonicRegression
    from netcal.scaling import BetaCalibration, LogisticCalibration, TemperatureScaling
    from pyro import get_param_store

    predictions, test = flawed(800, 1.5, classes), flawed(100, 1.5, classes, seed=1)
    rows, others = (log_probs(of.logits).exp() for of in (predictions, test))
    for method, kind in ("temperature", TemperatureScaling), ("vector", LogisticCalibration):
        theirs = quietly(kind(), rows, predictions.labels, get_param_store()).transform(others.numpy())
        ours = calibrate(method, predictions, test).logits[0, 0].double().exp()
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-3, atol=2e-4)
    for method, kind in ("histogram", HistogramBinning), ("isotonic", IsotonicRegression):
        theirs = kind().fit(rows.numpy(), predictions.labels.numpy()).transform(others.numpy())
        ours = calibrate(method, predictions, test).logits[0, 0].double().exp()
        torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-5, atol=1e-7)
    theirs = []
    for k in range(classes):  # its own form for several classes is a softmax, not that of the paper
        estimator = quietly(BetaCalibration(), rows[:, k], (predictions.labels == k).long(), get_param_store())
        theirs.append(torch.from_numpy(estimator.transform(others[:, k].numpy())))
    stacked = torch.stack(theirs, dim=-1)
    ours = calibrate("beta", predictions, test).logits[0, 0].double().exp()
    torch.testing.assert_close(ours, stacked / stacked.sum(-1, keepdim=True), rtol=2e-3, atol=5e-4)


def test_the_flaws_of_netcal_that_are_avoided() -> None:
    """Fails if netcal changes."""
    import pyro
    from netcal.scaling import TemperatureScaling

    predictions = flawed(800, 30.0, 10)
    rows = log_probs(predictions.logits).exp()
    with pyro.get_param_store().scope():
        pyro.param("of the user", torch.ones(2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = TemperatureScaling().fit(rows.numpy(), predictions.labels.numpy(), tensorboard=False)
        assert "of the user" not in pyro.get_param_store()
    assert 1 / theirs.temperature[0] < 20
    assert temperature_of(fit_calibration("temperature", predictions)) == pytest.approx(30, rel=0.1)


@METHOD
@POOLING
def test_the_pyro_parameter_store_is_unchanged(method: CalibrationMethod, pooling: Pooling) -> None:
    import pyro
    from torch.distributions import constraints

    store = pyro.get_param_store()
    with store.scope():
        pyro.param("loc", torch.zeros(3))
        scale = pyro.param("scale", torch.ones(3), constraint=constraints.positive)
        before = {name: (id(value), value.detach().clone()) for name, value in store.named_parameters()}
        calibrate(method, make(images=100), make(images=20), pooling)
        assert {name: id(value) for name, value in store.named_parameters()} == {k: v[0] for k, v in before.items()}
        assert all(torch.equal(value, before[name][1]) for name, value in store.named_parameters())
        assert torch.equal(store["scale"], scale)


def test_importing_netcal_leaves_the_pyro_store() -> None:
    code = (
        "import pyro, torch; pyro.param('mine', torch.ones(2)); "
        "from bayes_share.evaluation.posthoc import fit_calibration; import netcal.binning; "
        "print(list(pyro.get_param_store().keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['mine']"


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for method in get_args(CalibrationMethod):
        calibrate(method, make(images=100, classes=3), make(images=20, classes=3))
    assert capfd.readouterr().out == ""


def test_invalid_input_is_rejected(unchecked: None) -> None:
    validation, test = make(images=100), make(images=20)
    with pytest.raises(InputError, match="unknown calibration 'platt'"):
        fit_calibration("platt", validation)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown pooling 'between'"):
        fit_calibration("beta", validation, "between")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"5 classes, and these predictions have 3 classes"):
        calibrate("beta", validation, make(classes=3))
    with pytest.raises(InputError, match="fitted to 5 classes, and these predictions have 3"):
        fit_calibration("beta", validation)(make(classes=3))
    with pytest.raises(InputError, match="calibration requires at least 20 validation examples, not 19"):
        calibrate("temperature", make(images=19), test)
    with pytest.raises(InputError, match="examples of at least two classes: all have class 2"):
        calibrate("temperature", Predictions(validation.logits, torch.full((100,), 2)), test)
