"""Predictions of numbers and counts, in memory and in files."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_predictions import make
from scipy import stats

from bayes_share import (
    MAP,
    Bernoulli,
    DeepEnsemble,
    Gaussian,
    Model,
    Poisson,
    fit_tensors,
    predict_arguments,
    predictive,
)
from bayes_share.errors import InputError
from bayes_share.evaluation import Predictions, read_predictions, write_predictions
from bayes_share.evaluation.number_predictions import (
    NumberPredictions,
    read_number_predictions,
    write_number_predictions,
)
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.models.likelihoods import Likelihood

RNG = np.random.default_rng(0)
LOC = RNG.normal(size=(2, 3, 5))
TARGETS = RNG.normal(size=5)


class Waiting(Likelihood):
    def of(self, arguments: Any) -> Any:
        return torch.distributions.Exponential(**arguments)


@pytest.mark.parametrize(
    ("kind", "arguments", "of"),
    [
        ("normal", {"loc": LOC, "scale": np.float32(0.5)}, lambda a: stats.norm(a["loc"], a["scale"])),
        (
            "student_t",
            {"df": 4.0, "loc": LOC, "scale": np.exp(LOC[:, :, :1])},
            lambda a: stats.t(a["df"], a["loc"], a["scale"]),
        ),
        ("poisson", {"rate": np.exp(LOC).astype(np.float32)}, lambda a: stats.poisson(a["rate"])),
    ],
)
def test_predictive_is_the_mixture_of_the_arguments(
    kind: str, arguments: dict[str, Any], of: Any, tmp_path: Path
) -> None:
    """Also after a round trip through a file, with parameters that are constant over examples and differ by draw."""
    targets = np.arange(5) if kind == "poisson" else TARGETS
    names = ("a", "b", "ü", "", "a\nb")
    made = NumberPredictions(arguments, targets, kind, names)
    write_number_predictions(tmp_path / "p.npz", made)
    read = read_number_predictions(tmp_path / "p.npz")
    assert read.names == names
    for one in (made, read):
        components = of({name: np.asarray(values, dtype=np.float64) for name, values in arguments.items()})
        log = components.logpmf(targets) if kind == "poisson" else components.logpdf(targets)
        expected = np.log(np.exp(log).mean((0, 1)))
        np.testing.assert_allclose(one.predictive.log_prob(one.targets).numpy(), expected, rtol=1e-9)
        np.testing.assert_allclose(one.predictive.cdf(one.targets).numpy(), components.cdf(targets).mean((0, 1)))
    for name, values in made.arguments.items():
        assert values.dtype == read.arguments[name].dtype
        assert torch.equal(values, read.arguments[name])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_axes_of_draws_and_members_may_be_left_out(axes: int) -> None:
    loc = LOC[(0,) * (3 - axes)]
    made = NumberPredictions({"loc": loc, "scale": 1.0}, TARGETS)
    assert made.arguments["loc"].shape == (*(1,) * (3 - axes), *loc.shape)
    np.testing.assert_allclose(made.predictive.mean.numpy(), loc.reshape(-1, 5).mean(0))


COLUMN = TARGETS[:, None]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "targets", "says"),
    [
        ({"loc": COLUMN, "scale": 0.1}, TARGETS, "loc of shape [5, 1] has 5 examples or 5 members"),
        ({"loc": torch.from_numpy(COLUMN), "scale": 0.1}, TARGETS, "loc of shape [5, 1] has 5 examples or 5 members"),
        ({"loc": LOC[0][..., None], "scale": 0.1}, TARGETS, "loc of shape [3, 5, 1] has 5 examples or 5 members"),
        ({"loc": COLUMN[..., None], "scale": 0.1}, TARGETS, "loc of shape [5, 1, 1] has 5 examples or 5 draws"),
        ({"loc": COLUMN[..., None], "scale": 0.1}, COLUMN, "loc of shape [5, 1, 1] has 5 examples or 5 members"),
        ({"loc": TARGETS, "scale": np.exp(COLUMN)}, TARGETS, "scale of shape [5, 1] has 5 examples or 5 members"),
        ({"loc": COLUMN, "scale": np.exp(COLUMN)}, TARGETS, "loc of shape [5, 1] has 5 examples or 5 members"),
    ],
)
def test_a_column_of_predictions_is_not_read_as_members(arguments: dict[str, Any], targets: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"the argument {says}: for examples, remove the axis of length 1")):
        NumberPredictions(arguments, targets)


def test_a_column_of_predictions_is_accepted_for_a_column_of_targets() -> None:
    made = NumberPredictions({"loc": COLUMN + 0.1, "scale": 0.1}, COLUMN)
    assert made.arguments["loc"].shape == (1, 1, 5, 1)
    np.testing.assert_allclose((made.predictive.mean - made.targets).numpy(), 0.1)


def test_as_many_members_as_examples_can_have_their_own_noise(tmp_path: Path) -> None:
    """The scale [5, 1] belongs to the 5 members that the location has, also in a file and for chosen examples."""
    loc, scale = RNG.normal(size=(2, 5, 5)), RNG.uniform(1, 2, size=(5, 1))
    expected = np.log(np.exp(stats.norm(loc, scale).logpdf(TARGETS)).mean((0, 1)))
    made = NumberPredictions({"loc": loc, "scale": scale}, TARGETS)
    np.testing.assert_allclose(made.predictive.log_prob(made.targets).numpy(), expected)
    constant = NumberPredictions({"loc": loc[..., :1], "scale": scale}, np.arange(7.0))
    chosen = constant.at(torch.arange(5))
    assert chosen.arguments["loc"].shape == (2, 5, 1)
    write_number_predictions(tmp_path / "p.npz", chosen)
    assert read_number_predictions(tmp_path / "p.npz").arguments["loc"].shape == (2, 5, 1)


def test_examples_can_have_several_targets() -> None:
    loc, targets = RNG.normal(size=(3, 5, 2)), RNG.normal(size=(5, 2))
    made = NumberPredictions({"loc": loc, "scale": torch.ones(5, 1)}, targets)
    expected = np.log(np.exp(stats.norm(loc, 1).logpdf(targets).sum(-1)).mean(0))
    np.testing.assert_allclose(made.predictive.log_prob(made.targets).numpy(), expected)


def test_a_custom_likelihood_is_passed_to_the_reader(tmp_path: Path) -> None:
    made = NumberPredictions({"rate": np.exp(LOC)}, np.exp(TARGETS), Waiting())
    write_number_predictions(tmp_path / "p.npz", made)
    read = read_number_predictions(tmp_path / "p.npz", Waiting())
    assert torch.equal(read.predictive.mean, made.predictive.mean)
    with pytest.raises(InputError, match="unknown likelihood of numbers 'Waiting': choose from normal"):
        read_number_predictions(tmp_path / "p.npz")
    write_number_predictions(tmp_path / "p.npz", NumberPredictions({"loc": LOC, "scale": 1.0}, TARGETS))
    with pytest.raises(InputError, match="the predictions have the likelihood normal, not Waiting"):
        read_number_predictions(tmp_path / "p.npz", Waiting())


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "scale": (
        {"arguments": {"loc": LOC, "scale": -np.ones((2, 1, 1))}},
        "scale of normal must be above 0: 2 are not, the first -1",
    ),
    "examples": (
        {"arguments": {"loc": LOC[..., :4], "scale": 1.0}},
        "the argument loc must be [draw, member, example] for targets of shape [5], and has the shape [2, 3, 4]",
    ),
    "members": (
        {"arguments": {"loc": LOC, "scale": np.ones((2, 4, 1))}},
        "the arguments have different numbers of members: loc [2, 3, 5], scale [2, 4, 1]",
    ),
    "names of arguments": (
        {"arguments": {"loc": LOC, "sigma": 1.0}},
        "normal does not take the arguments loc, sigma",
    ),
    "NaN": (
        {"arguments": {"loc": np.where(LOC > 0, np.nan, LOC), "scale": 1.0}},
        f"the argument loc: {(LOC > 0).sum()} of 30 values are not finite",
    ),
    "infinite targets": ({"targets": TARGETS * np.inf}, "targets: 5 of 5 values are not finite"),
    "targets that are not counts": (
        {"likelihood": "poisson", "arguments": {"rate": np.exp(LOC)}, "targets": np.arange(5) / 2},
        "2 of 5 targets are outside the support of poisson, the first is 0.5",
    ),
    "too small": (
        {"arguments": {"loc": 0.0, "scale": 1e-170}},
        "a standard deviation of 1e-170 has no square in float64: give targets and arguments in a smaller unit",
    ),
    "too large": (
        {"arguments": {"loc": LOC * 1e160, "scale": 1.0}},
        "has no square in float64: give targets and arguments in a larger unit",
    ),
    "unknown likelihood": ({"likelihood": "gaussian"}, "unknown likelihood of numbers 'gaussian'"),
    "wrong number of names": ({"names": ("a",)}, "there are 1 names for 5 examples"),
    "text targets": ({"targets": np.array(["a"] * 5)}, "targets must be numbers, and are texts"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
def test_invalid_arguments_are_rejected(case: str) -> None:
    changes, says = BAD[case]
    with pytest.raises(InputError, match=re.escape(says)):
        NumberPredictions(**{"arguments": {"loc": LOC, "scale": 1.0}, "targets": TARGETS, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"targets": None}, "predictions of numbers require the array targets, which is missing"),
        ({"format": np.array(2)}, "was written by a newer version of bayes-share"),
        ({"scale": np.zeros((1, 1, 1))}, "scale of normal must be above 0"),
        ({"likelihood": np.array("a" * 5000)}, "unknown likelihood of numbers"),
    ],
)
def test_damaged_files_are_rejected(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    arrays = {"loc": LOC, "scale": np.ones((1, 1, 1)), "targets": TARGETS, "likelihood": np.array("normal"), **changes}
    path = tmp_path / "p.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        read_number_predictions(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000


def test_read_predictions_reads_all_kinds_of_files(tmp_path: Path) -> None:
    of_numbers, of_classes = NumberPredictions({"loc": LOC, "scale": 1.0}, TARGETS), make()
    write_number_predictions(tmp_path / "n.npz", of_numbers)
    write_predictions(tmp_path / "c.npz", of_classes)
    numbers, classes = read_predictions(tmp_path / "n.npz"), read_predictions(tmp_path / "c.npz")
    assert isinstance(numbers, NumberPredictions)
    assert torch.equal(numbers.predictive.mean, of_numbers.predictive.mean)
    assert isinstance(classes, Predictions)
    assert torch.equal(classes.logits, of_classes.logits)
    with pytest.raises(InputError, match=r"n.npz contains predictions of numbers, and predictions of classes"):
        read_class_predictions(tmp_path / "n.npz")


def test_arguments_from_an_algorithm_are_kept() -> None:
    x = torch.linspace(-1, 1, 40)[:, None]
    algorithm = DeepEnsemble(of=MAP(learning_rate=1e-3), networks=2)
    state = fit_tensors(algorithm, lambda: Model(torch.nn.Linear(1, 1), Gaussian(0.3, learned=True)), x, 2 * x, 20)
    likelihood, arguments = predict_arguments(algorithm, state, x)
    kept = NumberPredictions(arguments, 2 * x[:, 0], likelihood)
    expected = predictive(algorithm, state, x)
    assert torch.equal(kept.predictive.log_prob(kept.targets), expected.log_prob(2 * x[:, 0].double()))
    scales = kept.arguments["scale"]
    assert scales.shape == (1, 2, 1)
    assert scales[0, 0] != scales[0, 1]


@pytest.mark.usefixtures("unchecked")
def test_the_result_of_predict_arguments_is_accepted() -> None:
    x, y = torch.linspace(-1, 1, 30)[:, None], torch.linspace(0, 5, 30).round()
    state = fit_tensors(MAP(), Model(torch.nn.Linear(1, 1), Poisson()), x, y, num_steps=1)
    likelihood, arguments = found = predict_arguments(MAP(), state, x)
    taken = NumberPredictions(found, y)
    assert taken.likelihood is likelihood
    assert torch.equal(taken.predictive.mean, predictive(MAP(), state, x).mean)
    assert torch.equal(NumberPredictions(arguments, y, "poisson").predictive.mean, taken.predictive.mean)
    for wrong, says in (
        (lambda: NumberPredictions(found, y, "normal"), "the arguments have the likelihood poisson, not normal"),
        (
            lambda: NumberPredictions((Bernoulli(), {"logits": y}), y),
            "is a likelihood of classes: use Predictions",
        ),
        (lambda: NumberPredictions(y, y), "arguments must be a dict"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=says):
            wrong()
