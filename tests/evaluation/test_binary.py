"""Binary outputs have the same scores as two-class predictions with the logits [0, z]."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation import (
    CALIBRATIONS,
    Outputs,
    Predictions,
    accuracy,
    calibrate,
    diversity,
    elpd,
    elpd_differences,
    function_space_convergence,
    loo,
    ood_scores,
    paired_differences,
    read_outputs,
    read_predictions,
    reliability_picture,
    score,
    score_intervals,
    to_arviz,
    two_class_logits,
    uncertainty,
    write_draws,
    write_predictions,
)


def binary(labels: int = 1, draws: int = 8, members: int = 4, images: int = 60, seed: int = 0) -> Predictions:
    """Random predictions of binary labels that are better than chance."""
    source = torch.Generator().manual_seed(seed)
    truth = torch.randint(2, (images, labels), generator=source)
    z = 1.5 * torch.randn(draws, members, images, labels, generator=source) + 0.2 * (2.0 * truth - 1)
    return Predictions(z, truth, likelihood="bernoulli")


def categorical(predictions: Predictions, label: int = 0) -> Predictions:
    """The two-class problem of one label, written out."""
    z = predictions.logits[..., label]
    labels = predictions.labels.reshape(len(predictions.labels), -1)[:, label]
    return Predictions(torch.stack([0 * z, z], dim=-1), labels)


def numbers(found: Any) -> list[Tensor]:
    """All numbers of a result of any type, as a list of tensors."""
    if found is None or isinstance(found, str):
        return []
    if isinstance(found, Tensor):
        return [found.double()]
    if isinstance(found, int | float):
        return [torch.tensor(float(found), dtype=torch.float64)]
    if isinstance(found, dict):
        return [number for name in sorted(found) for number in numbers(found[name])]
    if isinstance(found, list | tuple):
        return [number for each in found for number in numbers(each)]
    return [number for field in fields(found) for number in numbers(getattr(found, field.name))]


FIGURES: dict[str, Callable[[Predictions], Any]] = {
    "score": score,
    "score_intervals": lambda p: score_intervals(p, resamples=50),
    "paired_differences": lambda p: paired_differences(p, replace(p, logits=0.5 * p.logits)),
    "uncertainty": uncertainty,
    "ood_scores": ood_scores,
    "diversity": diversity,
    "elpd": elpd,
    "elpd_differences": lambda p: elpd_differences({"a": p, "b": replace(p, logits=0.5 * p.logits)}),
    **{
        f"{method}, {pooling}": lambda p, method=method, pooling=pooling: score(calibrate(method, p, p, pooling))
        for method in CALIBRATIONS
        for pooling in (("before", "after") if method == "temperature" else ("before",))
    },
}


@pytest.mark.parametrize("name", FIGURES)
def test_one_binary_label_gives_the_results_of_two_classes(name: str) -> None:
    predictions = binary()
    ours, theirs = numbers(FIGURES[name](predictions)), numbers(FIGURES[name](categorical(predictions)))
    assert len(ours) == len(theirs) > 0
    assert any(bool((number != 0).any()) for number in ours)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ("score_intervals", "elpd_differences")])
def test_results_for_several_labels_are_means_over_labels(name: str) -> None:
    predictions = binary(labels=3)
    if name == "paired_differences":
        found = FIGURES[name](predictions)
        each = [FIGURES[name](categorical(predictions, label)) for label in range(3)]
        for key, difference in found.items():
            assert difference.mean == pytest.approx(sum(one[key].mean for one in each) / 3, rel=1e-6)
        return
    found = numbers(FIGURES[name](predictions))
    if name == "elpd":  # its error is that of the images' means
        found = [found[0], found[2]]
    each = [numbers(FIGURES[name](categorical(predictions, label))) for label in range(3)]
    for place, number in enumerate(found):
        column = [one[2 * place] if name == "elpd" else one[place] for one in each]
        torch.testing.assert_close(number, torch.stack(column).mean(0), rtol=1e-6, atol=1e-6)


def test_intervals_of_several_labels() -> None:
    predictions = binary(labels=3)
    found = score_intervals(predictions, resamples=50)
    for name, value in (("accuracy", score(predictions).accuracy), ("nll", score(predictions).nll)):
        assert found[name].value == pytest.approx(value)
        assert found[name].low < value < found[name].high
    each = [score_intervals(categorical(predictions, label), resamples=50)["ece"] for label in range(3)]
    assert found["ece"].high == pytest.approx(sum(one.high for one in each) / 3)


def test_binary_accuracy_is_computed_from_the_sign_of_the_logit() -> None:
    predictions = binary(labels=2, draws=1, members=1)
    right = (predictions.logits[0, 0] > 0) == (predictions.labels == 1)
    assert score(predictions).accuracy == pytest.approx(right.double().mean().item())
    p = predictions.logits[0, 0].double().sigmoid()
    nll = -torch.where(predictions.labels == 1, p, 1 - p).log().mean().item()
    assert score(predictions).nll == pytest.approx(nll)


def test_binary_uncertainty_is_computed_from_the_sigmoid() -> None:
    z = torch.tensor([[[0.0, 3.0]], [[0.0, -3.0]]])  # the draws contradict each other on the second image
    found = uncertainty(Outputs(z, likelihood="bernoulli"))
    assert found.entropy.tolist() == pytest.approx([np.log(2), np.log(2)])
    assert found.mutual_information[0].item() == pytest.approx(0, abs=1e-12)
    assert found.mutual_information[1].item() > 0.4
    assert uncertainty(two_class_logits(z)).entropy.tolist() == found.entropy.tolist()


def test_convergence_and_loo_use_the_joint_likelihood_of_all_labels() -> None:
    predictions = binary(labels=2, draws=20, members=2, images=30)
    total = sum(
        torch.nn.functional.logsigmoid((2 * predictions.labels[:, label] - 1) * predictions.logits[..., label].double())
        for label in range(2)
    )
    assert isinstance(total, Tensor)
    assert loo(predictions).elpd_loo == pytest.approx(loo(total).elpd_loo, rel=1e-6)
    one = binary(draws=20, members=2, images=30)
    assert loo(one).elpd_loo == pytest.approx(loo(categorical(one)).elpd_loo, rel=1e-6)
    rhat, other = (function_space_convergence(each).rhat for each in (one, categorical(one)))
    torch.testing.assert_close(rhat, other)


def test_arviz_data_of_binary_outputs() -> None:
    one, several = binary(draws=5, members=2, images=9), binary(3, draws=5, members=2, images=9)
    found, expected = to_arviz(train=one), to_arviz(train=categorical(one))
    for group, name in (("log_likelihood", "labels"), ("posterior_predictive", "probs"), ("observed_data", "labels")):
        np.testing.assert_allclose(found[group][name].values, expected[group][name].values, rtol=1e-6)
    found = to_arviz(other=several)
    probs = found["predictions"]["probs"]
    assert probs.dims == ("chain", "draw", "observation", "label", "class")
    np.testing.assert_allclose(
        probs.values[..., 1], several.logits.transpose(0, 1).sigmoid().numpy(), rtol=1e-5, atol=1e-7
    )
    assert found["predictions_constant_data"]["labels"].dims == ("observation", "label")


def test_each_label_has_a_panel_in_the_reliability_diagram(tmp_path: Path) -> None:
    reliability_picture({"run": binary(labels=2)}, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "run, label 0" in text
    assert "run, label 1" in text
    one = binary()
    reliability_picture({"run": one}, tmp_path / "one.svg")
    reliability_picture({"run": categorical(one)}, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize("shape", [(4, 2, 30), (4, 2, 30, 1), (4, 2, 30, 3)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float32])
def test_labels_of_all_shapes_and_dtypes_are_kept(shape: tuple[int, ...], dtype: torch.dtype, tmp_path: Path) -> None:
    logits = torch.randn(shape)
    labels = torch.randint(2, logits.reshape(4, 2, 30, -1).shape[2:]).to(dtype)
    written = Predictions(logits, labels, likelihood="bernoulli")
    write_predictions(tmp_path / "a.npz", written)
    read = read_predictions(tmp_path / "a.npz")
    assert read.likelihood == "bernoulli"
    assert torch.equal(read.logits, logits.reshape(4, 2, 30, -1))
    assert torch.equal(read.labels, labels.long().squeeze(-1))
    assert score(read) == score(written)
    np.savez(tmp_path / "c.npz", logits=read.logits.numpy(), labels=read.labels.numpy(), likelihood="bernoulli")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    write_draws(tmp_path / "b.npz", iter(logits), 4, labels, likelihood="bernoulli")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert read_outputs(tmp_path / "b.npz").likelihood == "bernoulli"
    if labels.shape[1] == 1:
        flat = Predictions(logits, labels[:, 0], likelihood="bernoulli")
        assert torch.equal(flat.labels, read.labels)


def test_a_file_without_a_likelihood_is_categorical(tmp_path: Path) -> None:
    logits, labels = np.zeros((1, 1, 3, 2), np.float32), np.zeros(3, np.int64)
    np.savez(tmp_path / "old.npz", logits=logits, labels=labels)
    assert read_predictions(tmp_path / "old.npz").likelihood == "categorical"
    np.savez(tmp_path / "new.npz", logits=logits, labels=labels, likelihood=np.array("gaussian"))
    with pytest.raises(InputError, match=r"new\.npz: .*gaussian.*bernoulli, categorical"):
        read_predictions(tmp_path / "new.npz")


@pytest.mark.usefixtures("unchecked")
def test_invalid_binary_predictions_are_rejected() -> None:
    z, labels = torch.zeros(1, 1, 4, 1), torch.tensor([0, 1, 1, 0])
    for one_class in (lambda: Predictions(z, labels), lambda: uncertainty(z), lambda: Outputs(z)):
        with pytest.raises(InputError, match=r'at least two classes.*likelihood="bernoulli".*two_class_logits'):
            one_class()
    with pytest.raises(
        InputError, match=r"probabilities must have at least two classes: for a binary output p use \[1 - p,"
    ):
        accuracy(torch.ones(4, 1), 0 * labels)
    for wrong in (labels - 1, 2 * labels, 0.5 * labels):
        with pytest.raises(InputError, match=r"binary labels must be 0 or 1: 2 of 4 are not, the first at example "):
            Predictions(z, wrong, likelihood="bernoulli")
    with pytest.raises(InputError, match=r"of 4 examples with 3 labels must have shape \[4, 3\], and have \[4\]"):
        Predictions(z.expand(1, 1, 4, 3), labels, likelihood="bernoulli")
    with pytest.raises(InputError, match="use NumberPredictions for numbers"):
        Predictions(z.expand(1, 1, 4, 2), labels.float())
    with pytest.raises(InputError, match="gaussian"):
        Outputs(z, likelihood="gaussian")  # type: ignore[arg-type]
    for made in (
        lambda: Outputs(torch.zeros(3, 4, 1), likelihood="bernoulli"),
        lambda: Predictions(torch.zeros(3, 4, 1), labels, likelihood="bernoulli"),
    ):
        with pytest.raises(InputError, match=r"\[3, 4, 1\] are \[draw, member, image\] or|binary labels of 1 examples"):
            made()
    assert Predictions(torch.zeros(3, 4, 1), labels[:1], likelihood="bernoulli").logits.shape == (3, 4, 1, 1)
    several = Outputs(z.expand(1, 1, 4, 3), likelihood="bernoulli")
    with pytest.raises(InputError, match=r"3 labels have no common distribution over classes"):
        _ = several.log_probs
    with pytest.raises(InputError, match="several labels are Outputs"):
        two_class_logits(several.logits)
    with pytest.raises(InputError, match="3 binary labels, and these predictions have 2 classes"):
        calibrate("temperature", binary(labels=3), categorical(binary()))
