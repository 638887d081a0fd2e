"""Reports on, and scores of, predictions of numbers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import bayes_share
from bayes_share import NumberPredictions, Predictions, conformal_intervals
from bayes_share.cli import main
from bayes_share.errors import InputError
from bayes_share.evaluation import write_number_predictions
from bayes_share.evaluation.numbers import fit_variance_scaling, number_scores
from bayes_share.reports import build_report
from bayes_share.reports.document import Cell, Figure, Report, Table
from bayes_share.reports.export import write_csv, write_json
from bayes_share.reports.gather import own_results
from bayes_share.reports.html_page import html_page
from bayes_share.reports.number_report import build_number_report


def predictions(seed: int = 0, factor: float = 1.0, examples: int = 150) -> NumberPredictions:
    """Two members with the correct noise scale times a factor; the targets depend on the seed only."""
    rng = np.random.default_rng(seed)
    loc, scale = rng.normal(size=(2, examples)), np.exp(rng.normal(size=(1, examples)))
    targets = loc.mean(0) + scale[0] * rng.normal(size=examples)
    return NumberPredictions({"loc": loc, "scale": factor * scale}, targets)


def rows(report: Report, name: str) -> list[dict[str, Cell]]:
    return [dict(row) for table in report.blocks(Table) if table.name == name for row in table.rows]


@pytest.fixture(scope="module")
def report() -> Report:
    return build_number_report(
        {"mine": predictions(), "sharp": predictions(factor=0.3)}, {"sharp": predictions(1, 0.3, 200)}
    )


def test_the_overview_has_the_scores_of_the_mixture(report: Report) -> None:
    mine = predictions()
    loc, scale, y = (np.asarray(each) for each in (mine.arguments["loc"], mine.arguments["scale"], mine.targets))
    found = rows(report, "overview")[0]
    nll = -np.log(stats.norm(loc, scale).pdf(y).mean((0, 1))).mean()
    assert found["nll"].value == pytest.approx(nll)
    assert found["rmse"].value == pytest.approx(np.sqrt(((loc.mean((0, 1)) - y) ** 2).mean()))
    assert (found["nll"].error or 0) > 0
    lead = {one.name: one.lead for one in report.sections}["overview"]
    assert any(line.startswith("mine has the lowest NLL") and "chance" not in line for line in lead)
    assert found["nll"].is_best
    assert not rows(report, "overview")[1]["nll"].is_best


def test_recalibration_is_fitted_to_validation_predictions(report: Report) -> None:
    test, validation = predictions(factor=0.3), predictions(1, 0.3, 200)
    scaled = fit_variance_scaling(validation.predictive, validation.targets)(test.predictive)
    found = {row["map"].value: row for row in rows(report, "recalibration")}
    assert list(found) == ["none", "variance scaling", "isotonic"]
    assert {row["run"].value for row in found.values()} == {"sharp"}
    expected = number_scores(scaled, test.targets)
    assert found["variance scaling"]["nll"].value == pytest.approx(expected["nll"].value)
    assert found["variance scaling"]["nll"].value < found["none"]["nll"].value  # type: ignore[operator]
    assert "nll" not in found["isotonic"]


def test_the_least_expected_targets_are_listed() -> None:
    test = predictions()
    named = NumberPredictions(test.arguments, test.targets, names=tuple(f"row {i}" for i in range(150)))
    worst = int(test.predictive.log_prob(test.targets).argmin())
    (first, *_) = rows(build_number_report({"mine": named}), "worst-mine")
    assert first["example"].value == f"row {worst}"
    assert first["target"].value == test.targets[worst].item()


def test_python_and_command_line_give_the_same_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, validation = predictions(), predictions(1, examples=200)
    nll = f"{number_scores(mine.predictive, mine.targets)['nll'].value:.4f}"
    path = bayes_share.report({"mine": mine}, tmp_path / "a.html", validation={"mine": validation})
    assert nll in path.read_text()
    assert "one set of predictions: 150 test examples" in path.read_text()
    assert nll in bayes_share.evaluate({"mine": mine})
    write_number_predictions(tmp_path / "p.npz", mine)
    write_number_predictions(tmp_path / "v.npz", validation)
    files = [f"mine={tmp_path}/p.npz", "--validation", f"mine={tmp_path}/v.npz"]
    assert main(["report", *files, "-o", f"{tmp_path}/b.html", "--figures", f"{tmp_path}/figures"]) == 0
    assert (tmp_path / "b.html").read_text() == path.read_text()
    assert main(["evaluate", f"mine={tmp_path}/p.npz"]) == 0
    assert nll in capsys.readouterr().out


def test_predictions_that_do_not_match_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, other, classes = predictions(), predictions(2), Predictions(np.zeros((150, 2)), np.zeros(150, np.int64))
    cases: list[tuple[Any, Any, str]] = [
        ({"a": mine, "b": other}, None, "a and b are predictions of different examples (their targets"),
        ({"a": mine, "b": classes}, None, "a are predictions of numbers, and b of classes"),
        ({"a": mine}, {"a": classes}, "the validation predictions of a are predictions of classes"),
        ({"a": mine}, {"b": mine}, "validation predictions are given for b, but there are only test predictions of a"),
    ]
    for test, validation, says in cases:
        with pytest.raises(InputError, match=re.escape(says)):
            bayes_share.report(test, tmp_path / "r.html", validation=validation)
    write_number_predictions(tmp_path / "p.npz", mine)
    np.savez(tmp_path / "c.npz", logits=np.zeros((150, 2)), labels=np.zeros(150, np.int64))
    for words, says in (
        (["report", f"{tmp_path}/p.npz", f"{tmp_path}/c.npz"], "p are predictions of numbers"),
        (
            ["evaluate", f"{tmp_path}/p.npz", "--picture", f"{tmp_path}/a.png"],
            "--picture requires predictions of classes, and these are predictions",
        ),
    ):
        assert main(words) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_report_on_examples_with_several_targets() -> None:
    rng = np.random.default_rng(0)
    loc, targets = rng.normal(size=(3, 60, 2)), rng.normal(size=(60, 2))
    made = build_number_report({"mine": NumberPredictions({"loc": loc, "scale": 1.0}, targets)})
    assert made.subtitle == "one set of predictions: 60 test examples with 2 targets each"
    joint = -np.log(np.exp(stats.norm(loc, 1).logpdf(targets).sum(-1)).mean(0)).mean()
    assert rows(made, "overview")[0]["nll"].value == pytest.approx(joint)
    assert "worst" not in {section.name for section in made.sections}


def test_conformal_intervals_are_compared_with_those_of_the_forecast(report: Report) -> None:
    test, validation = predictions(factor=0.3), predictions(1, 0.3, 200)
    found = {(row["method"].value, row["aim"].value): row for row in rows(report, "conformal")}
    assert {row["run"].value for row in found.values()} == {"sharp"}
    own, cqr = found["own", 0.9], found["CQR", 0.9]
    assert own["coverage"].value == pytest.approx(number_scores(test.predictive, test.targets)["coverage"].value)
    lower, upper = conformal_intervals(validation, test)
    inside = ((lower <= test.targets) & (test.targets <= upper)).double().mean().item()
    assert (cqr["coverage"].value, cqr["calibrated"].value) == pytest.approx((inside, 200))
    assert cqr["width"].value == pytest.approx((upper - lower).mean().item())
    thirds = [row for row in rows(report, "conformal-widths") if row["method"].value == "CQR"]
    assert [row["examples"].value for row in thirds] == [50, 50, 50]
    shares = [row["coverage"].value for row in thirds]
    assert sum(shares) / 3 == pytest.approx(inside)  # type: ignore[arg-type]
    assert "conformal" in {figure.panels[0].name.partition("-")[0] for figure in report.blocks(Figure)}
    printed = bayes_share.evaluate({"mine": test}, {"mine": validation})
    assert f"{inside:.4g}"[:5] in printed.partition("Intervals:")[2]


def test_the_use_of_validation_examples_of_predictions_without_a_run_is_not_known(report: Report) -> None:
    (table,) = [table for table in report.blocks(Table) if table.name == "conformal"]
    assert "requires that the validation examples of sharp were not used for training or selection" in table.note
    assert "used to select epochs" not in table.note


def test_inputs_are_shown_for_the_least_expected_targets(tmp_path: Path) -> None:
    test = predictions()
    worst = int(test.predictive.log_prob(test.targets).argmin())
    age, city = np.arange(150) + 1900, [f"city {i}" for i in range(150)]
    made = build_number_report({"mine": test}, inputs={"age": age, "city": city, "target": torch.rand(150)})
    (first, *_) = rows(made, "worst-mine")
    assert (first["input age"].value, first["input city"].value) == (1900 + worst, f"city {worst}")
    assert first["target"].value == test.targets[worst].item()
    mixture = test.predictive
    error = (test.targets[worst] - mixture.mean[worst]) / mixture.variance[worst].sqrt()
    assert first["error"].value == pytest.approx(error.item())
    (first, *_) = rows(build_number_report({"mine": test}, inputs=np.stack([age, -age], 1)), "worst-mine")
    assert (first["input x0"].value, first["input x1"].value) == (1900 + worst, -1900 - worst)
    path = bayes_share.report({"mine": test}, tmp_path / "r.html", inputs={"city": city})
    assert f"city {worst}" in path.read_text()


def test_inputs_are_shown_for_the_least_expected_labels() -> None:
    rng = np.random.default_rng(0)
    test = Predictions(rng.normal(size=(2, 60, 3)), rng.integers(0, 3, 60))
    losses = -test.log_probs.gather(1, test.labels[:, None]).squeeze(1)
    worst = int(losses.argmax())
    (first, *_) = rows(build_report(own_results({"mine": test}), inputs={"x": np.arange(60) / 4}), "worst-mine")
    assert (first["example"].value, first["input x"].value) == (str(worst), worst / 4)
    assert first["nll"].value == pytest.approx(losses.max().item())
    assert "worst" not in {section.name for section in build_report(own_results({"mine": test})).sections}


def test_an_infinite_nll_does_not_stop_the_report(tmp_path: Path) -> None:
    """Two forecasts that each give a different target zero density."""
    targets = 1e5 * np.linspace(-1, 1, 40)
    runs = {}
    for name, sure in (("a", 3), ("b", 7)):
        scale = np.full(40, 1e5)
        scale[sure] = 1e-150
        runs[name] = NumberPredictions({"loc": np.zeros(40), "scale": scale}, targets)
    made = build_number_report(runs, runs)
    (row, _) = rows(made, "overview")
    assert (row["nll"].value, row["nll"].error) == (np.inf, None)
    assert row["rmse"].value == pytest.approx(np.sqrt((targets**2).mean()))
    shown = html_page(made)
    assert ">inf<" in re.sub(r"\s", "", shown)
    assert "nan" not in re.sub(r"<[^>]*>", " ", shown.partition("<main")[2]).split()
    assert "inf" in bayes_share.evaluate(runs)
    write_json(made, tmp_path / "r.json")
    write_csv(made, tmp_path / "r.csv")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"age": np.zeros(3)}, "the input age must be one value for each of the 150 test examples"),
        ([1, 2], 'inputs must be a dict, such as {"age": ages}, or an array, not'),
        (np.zeros((150, 2, 2)), "an array of inputs must be [example, input]"),
        ({"age": [[1], [2, 3]]}, "inputs must be numbers or texts"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_inputs_that_do_not_match_are_rejected(inputs: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        bayes_share.report({"mine": predictions()}, tmp_path / "r.html", inputs=inputs)
