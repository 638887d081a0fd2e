"""Examples with several positions: scores are over positions, errors over examples."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bayes_share
from bayes_share import MAP, Categorical, Model, Outputs, Predictions, fit_tensors, predict_arguments
from bayes_share.errors import InputError
from bayes_share.evaluation import calibrate, read_predictions, score, score_intervals, write_predictions
from bayes_share.evaluation.bootstrap_intervals import bootstrap, paired_differences
from bayes_share.evaluation.conformal import conformal_sets, halves
from bayes_share.evaluation.diagnostics import loo
from bayes_share.evaluation.elpd import elpd
from bayes_share.evaluation.positions import terms_by_example

IGNORED = -100


def arrays(examples: int = 40, positions: tuple[int, ...] = (3, 2), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``[draw, member, example, *position, class]`` and labels ``[example, *position]``, a fifth unknown."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (examples, *positions))
    logits = rng.normal(size=(2, 3, *labels.shape, 4)) + 2 * np.eye(4)[labels]
    return logits, np.where(rng.random(labels.shape) < 0.2, IGNORED, labels)


def once_and_thrice(seed: int = 0) -> tuple[Predictions, Predictions]:
    """Examples with one position, and the same examples with this position three times."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(9).integers(0, 3, 50)
    logits = rng.normal(size=(2, 50, 3)) + np.eye(3)[labels]
    return Predictions(logits, labels), Predictions(np.stack([logits] * 3, 2), np.stack([labels] * 3, 1))


def test_scores_are_means_over_known_positions() -> None:
    logits, labels = arrays()
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mixture, known = probs.mean((0, 1)), labels != IGNORED
    of_label = np.take_along_axis(mixture, np.where(known, labels, 0)[..., None], -1)[..., 0]
    made = Predictions(logits, labels, ignore_index=IGNORED)
    found = score(made)
    assert found.nll == pytest.approx(-np.log(of_label[known]).mean(), rel=1e-6)
    assert found.accuracy == pytest.approx((mixture.argmax(-1) == labels)[known].mean())
    assert (found.num_images, made.num_examples) == (known.sum(), 40)
    assert made.examples.tolist() == np.nonzero(known)[0].tolist()  # type: ignore[union-attr]
    pointwise = np.where(known, np.log(of_label), 0).sum((1, 2))
    assert elpd(made).error == pytest.approx(np.sqrt(40) * pointwise.std(ddof=1), rel=1e-6)


def test_axes_of_draws_and_members_may_be_left_out_and_padding_may_be_nan() -> None:
    logits, labels = arrays()
    of_one = logits[0, 0].copy()
    of_one[labels == IGNORED] = np.nan
    first = Predictions(logits[:1, :1], labels, ignore_index=IGNORED)
    for given in (of_one, of_one[None], of_one[None, None]):
        assert torch.equal(Predictions(given, labels, ignore_index=IGNORED).logits, first.logits)


def test_positions_do_not_count_as_examples_in_errors() -> None:
    once, thrice = once_and_thrice()
    ours, theirs = score_intervals(once), score_intervals(thrice)
    for name in ("accuracy", "nll", "brier"):
        for end in ("value", "low", "high", "error"):
            assert getattr(theirs[name], end) == pytest.approx(getattr(ours[name], end))
    for end in ("value", "high", "error"):
        assert getattr(theirs["ece"], end) == pytest.approx(getattr(ours["ece"], end))
    assert score(thrice).squared_calibration_error == pytest.approx(score(once).squared_calibration_error)
    other_once, other_thrice = once_and_thrice(1)
    differences = paired_differences(once, other_once)
    for name, found in paired_differences(thrice, other_thrice).items():
        assert found.count == 50
        assert (found.mean, found.error) == pytest.approx((differences[name].mean, differences[name].error))


def test_errors_with_different_numbers_of_positions_are_those_of_a_ratio() -> None:
    """Cochran 1977, eq. 6.13, written out: the mean is over positions, and the error over examples."""
    values = torch.randn(90, generator=torch.Generator().manual_seed(0)).double()
    examples = torch.arange(90).sqrt().long() + 5  # of 1, 3, 5, ... positions
    terms = terms_by_example(values, examples).numpy()
    ratio, each = values.mean().item(), [values[examples == i].numpy() for i in examples.unique().tolist()]
    rest = np.array([one.sum() - ratio * len(one) for one in each])
    expected = np.sqrt((rest**2).sum() / (len(each) - 1) / len(each)) / (90 / len(each))
    assert terms.mean() == pytest.approx(ratio)
    assert terms.std(ddof=1) / np.sqrt(len(each)) == pytest.approx(expected)
    endless = terms_by_example(torch.where(examples == 6, torch.inf, values), examples)
    assert endless.isinf().tolist() == [False, True] + [False] * (len(each) - 2)


def test_the_bootstrap_draws_examples_with_all_their_positions() -> None:
    logits, labels = arrays()
    made = Predictions(logits, labels, ignore_index=IGNORED)
    losses = -made.log_probs.gather(1, made.labels[:, None]).squeeze(1)

    def mean_loss(examples: Tensor) -> float:
        rows = torch.cat([losses[made.examples == example] for example in examples.tolist()])
        return float(rows.mean())

    expected, found = bootstrap(mean_loss, 40, 100), score_intervals(made, 100)["nll"]
    assert (found.value, found.low, found.high, found.error) == pytest.approx(
        (expected.value, expected.low, expected.high, expected.error)
    )


def test_psis_loo_leaves_out_all_positions_of_an_example() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(scale=0.3, size=(40, 1, 12, 3, 4)), rng.integers(0, 4, (12, 3))
    log_probs = torch.as_tensor(logits).float().double().log_softmax(-1)
    of_examples = log_probs.gather(-1, torch.as_tensor(labels)[None, None, ..., None].expand(40, 1, 12, 3, 1)).sum(
        (3, 4)
    )
    found, expected = loo(Predictions(logits, labels)), loo(of_examples)
    assert (found.elpd_loo, found.error) == pytest.approx((expected.elpd_loo, expected.error), rel=1e-6)


def test_the_file_keeps_which_example_a_position_is_of(tmp_path: Path) -> None:
    logits, labels = arrays()
    made = Predictions(logits, labels, ignore_index=IGNORED)
    write_predictions(tmp_path / "p.npz", made)
    np.savez(tmp_path / "own.npz", logits=logits, labels=labels, ignore_index=np.array(IGNORED))
    for name in ("p", "own"):
        read = read_predictions(tmp_path / f"{name}.npz")
        assert isinstance(read, Predictions)
        assert torch.equal(read.logits, made.logits)
        assert torch.equal(read.labels, made.labels)
        assert torch.equal(read.examples, made.examples)  # type: ignore[arg-type]


def test_predictions_for_pixels_and_tokens_are_accepted() -> None:
    x, pixels = torch.randn(12, 2, 3, 3), torch.randint(0, 4, (12, 3, 3))
    pixels[:, 0] = IGNORED
    likelihood = Categorical(class_axis=1, ignore_index=IGNORED)
    state = fit_tensors(MAP(learning_rate=1e-3), Model(torch.nn.Conv2d(2, 4, 1), likelihood), x, pixels, 2)
    _, arguments = predict_arguments(MAP(learning_rate=1e-3), state, x)
    made = Predictions(arguments["logits"], pixels, ignore_index=IGNORED)
    assert made.logits.shape == (1, 1, 12 * 6, 4)
    assert score(made).nll == pytest.approx(-float(made.log_probs.gather(1, made.labels[:, None]).mean()))


def test_binary_labels_of_pixels_are_accepted() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 10, 5, 1)), rng.integers(0, 2, (10, 5, 1))
    made = Predictions(logits, labels, likelihood="bernoulli")
    share = (1 / (1 + np.exp(-logits))).mean(0)
    assert score(made).nll == pytest.approx(-np.log(np.where(labels == 1, share, 1 - share)).mean(), rel=1e-6)
    assert made.num_examples == 10


def test_a_report_on_positions_is_written(tmp_path: Path) -> None:
    test, validation = (Predictions(*arrays(seed=seed), ignore_index=IGNORED) for seed in (0, 1))
    page = bayes_share.report({"mine": test}, tmp_path / "r.html", validation={"mine": validation}).read_text()
    assert f"{len(test.labels)} positions of 40 test examples in 4 classes" in page
    assert "Conformal sets" not in page
    printed = bayes_share.evaluate({"mine": test}, {"mine": validation})
    assert f"{score(test).nll:.4f}" in printed
    assert "Conformal" not in printed


def test_calibration_maps_apply_to_outputs_without_labels() -> None:
    logits, labels = arrays(positions=(4,))
    validation = Predictions(*arrays(seed=1), ignore_index=IGNORED)
    plain = Outputs(logits)
    for pooling, components in (("before", (1, 1)), ("after", (2, 3))):
        found = calibrate("temperature", validation, plain, pooling)  # type: ignore[arg-type]
        with_labels = calibrate("temperature", validation, Predictions(logits, abs(labels) % 4), pooling)  # type: ignore[arg-type]
        assert type(found) is Outputs
        assert torch.equal(found.logits, with_labels.logits)
        assert found.logits.shape[:2] == components
        assert torch.equal(found.examples, plain.examples)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda z, y: Predictions(z, y[:, :2]), "labels of shape [40, 2, 2] do not match logits of shape"),
        (lambda z, y: Predictions(z, y), "labels outside the classes 0 to 3"),
        (lambda z, y: Predictions(z, y * 0 - 1, ignore_index=-1), "every label is -1, the ignore_index"),
        (
            lambda z, y: Predictions(z, y, likelihood="bernoulli", ignore_index=-1),
            "ignore_index is not supported with a Bernoulli likelihood",
        ),
        (lambda z, y: Outputs(z[0, 0, :, 0, 0], examples=y[:, 0, 0] * 1.5), "examples must be an integer"),
        (lambda z, y: Outputs(z[0, 0, :, 0, 0], examples=y[:3, 0, 0]), "for each of 40 rows"),
        (
            lambda z, y: calibrate("temperature", Predictions(z, abs(y) % 4), z),
            "expected Outputs(logits), not ndarray",
        ),
        (lambda z, y: halves(Predictions(z, abs(y) % 4)), "positions of one example are not"),
        (lambda z, y: conformal_sets(*[Predictions(z, abs(y) % 4)] * 2), "positions of one example are not"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_input_is_rejected(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        make(*arrays())
    assert "\n" not in str(caught.value)
