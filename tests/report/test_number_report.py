"""A report and scores of predicted numbers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import bayes_share
from bayes_share import NumberPredictions, Predictions
from bayes_share.cli import main
from bayes_share.errors import InputError
from bayes_share.evaluation import write_number_predictions
from bayes_share.evaluation.numbers import fit_variance_scaling, number_scores
from bayes_share.reports.document import Cell, Report, Table
from bayes_share.reports.number_report import build_number_report


def predictions(seed: int = 0, factor: float = 1.0, examples: int = 150) -> NumberPredictions:
    """Two members whose noise is the targets' own, times a factor; the targets depend on the seed alone."""
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


def test_the_scores_are_those_of_the_mixture(report: Report) -> None:
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


def test_the_least_expected_targets_are_named() -> None:
    test = predictions()
    named = NumberPredictions(test.arguments, test.targets, names=tuple(f"row {i}" for i in range(150)))
    worst = int(test.predictive.log_prob(test.targets).argmin())
    (first, *_) = rows(build_number_report({"mine": named}), "worst-mine")
    assert first["example"].value == f"row {worst}"
    assert first["target"].value == test.targets[worst].item()


def test_pages_and_tables_by_python_and_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, validation = predictions(), predictions(1, examples=200)
    nll = f"{number_scores(mine.predictive, mine.targets)['nll'].value:.4f}"
    page = bayes_share.report({"mine": mine}, tmp_path / "a.html", validation={"mine": validation})
    assert nll in page.read_text()
    assert "one run: 150 test examples" in page.read_text()
    assert nll in bayes_share.evaluate({"mine": mine})
    write_number_predictions(tmp_path / "p.npz", mine)
    write_number_predictions(tmp_path / "v.npz", validation)
    files = [f"mine={tmp_path}/p.npz", "--validation", f"mine={tmp_path}/v.npz"]
    assert main(["report", *files, "-o", f"{tmp_path}/b.html", "--figures", f"{tmp_path}/figures"]) == 0
    assert (tmp_path / "b.html").read_text() == page.read_text()
    assert main(["evaluate", f"mine={tmp_path}/p.npz"]) == 0
    assert nll in capsys.readouterr().out


def test_what_does_not_go_together_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, other, classes = predictions(), predictions(2), Predictions(np.zeros((150, 2)), np.zeros(150, np.int64))
    cases: list[tuple[Any, Any, str]] = [
        ({"a": mine, "b": other}, None, "a and b are not predictions of the same examples"),
        ({"a": mine, "b": classes}, None, "a are predictions of numbers, and b of classes"),
        ({"a": mine}, {"a": classes}, "the validation predictions of a are of classes"),
        ({"a": mine}, {"b": mine}, "given for b, but there are only test predictions of a"),
    ]
    for test, validation, says in cases:
        with pytest.raises(InputError, match=re.escape(says)):
            bayes_share.report(test, tmp_path / "r.html", validation=validation)
    write_number_predictions(tmp_path / "p.npz", mine)
    np.savez(tmp_path / "c.npz", logits=np.zeros((150, 2)), labels=np.zeros(150, np.int64))
    for words, says in (
        (["report", f"{tmp_path}/p.npz", f"{tmp_path}/c.npz"], "p are predictions of numbers"),
        (["evaluate", f"{tmp_path}/p.npz", "--picture", f"{tmp_path}/a.png"], "--picture shows the reliability"),
    ):
        assert main(words) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_several_targets_of_an_example() -> None:
    rng = np.random.default_rng(0)
    loc, targets = rng.normal(size=(3, 60, 2)), rng.normal(size=(60, 2))
    made = build_number_report({"mine": NumberPredictions({"loc": loc, "scale": 1.0}, targets)})
    assert made.subtitle == "one run: 60 test examples with 2 targets each"
    joint = -np.log(np.exp(stats.norm(loc, 1).logpdf(targets).sum(-1)).mean(0)).mean()
    assert rows(made, "overview")[0]["nll"].value == pytest.approx(joint)
    assert "worst" not in {section.name for section in made.sections}
