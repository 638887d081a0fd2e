"""Reports on, and scores of, predictions without a run."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bayes_share
from bayes_share import (
    MAP,
    Gaussian,
    Model,
    NumberPredictions,
    Predictions,
    evaluate,
    fit_tensors,
    predict_arguments,
    report,
)
from bayes_share.cli import main
from bayes_share.errors import InputError
from bayes_share.evaluation.posthoc import calibrate
from bayes_share.evaluation.scores import score
from bayes_share.reports import build_report
from bayes_share.reports.document import Figure, Report, Table
from bayes_share.reports.gather import own_results, read_numbers, read_results
from bayes_share.reports.provenance import counted
from bayes_share.reports.results import Result


def arrays(seed: int = 0, images: int = 120, members: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits of members with an accuracy above 50 %, in float64, and labels as int32."""
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(9).integers(0, 4, images).astype(np.int32)
    return rng.normal(size=(members, images, 4)) + 1.5 * np.eye(4)[labels], labels


def tables(results: list[Result]) -> dict[str, Table]:
    return {table.name: table for table in build_report(results).blocks(Table)}


def test_sections_and_columns_that_require_a_run_are_missing() -> None:
    mine = Predictions(*arrays())
    found = tables(own_results({"mine": mine}))
    (row,) = found["overview"].rows
    assert row["nll"].value == pytest.approx(score(mine).nll)
    assert row["networks"].value == 3
    shown = {column.key for column in found["overview"].columns}
    assert not shown & {"method", "parameters", "seconds"}
    assert not set(row) & {"method", "parameters", "seconds"}
    assert {"members", "calibration", "selective"} <= set(found)
    assert not {"ledger", "posthoc-nll", "ood", "factors"} & set(found)
    sections = {section.name for section in build_report(own_results({"mine": mine})).sections}
    assert not sections & {"convergence", "costs", "repeat", "gallery", "ood", "robustness"}


def texts(made: Report) -> str:
    """All sentences and titles of a report, in lower case."""
    found = [made.subtitle]
    for section in made.sections:
        found += [section.title, *section.lead]
    for table in made.blocks(Table):
        found += [table.title, table.note, *(f"{column.title}: {column.about}" for column in table.columns)]
    for figure in made.blocks(Figure):
        found += [figure.title, figure.caption]
    return "\n".join(found).lower()


ONLY_OF_RUNS = (
    "one run",
    "all runs",
    "used to select epochs or members",
    "point estimate",
    "indicates an error",
    "a member are independent",
    "deep ensemble",
)
"""Phrases about training, members and draws that require a run."""


def test_a_report_on_logits_claims_nothing_about_their_training(runs: list[Result]) -> None:
    logits, labels = arrays()
    copied = Predictions(logits[[0, 0, 1]], labels)
    drawn = Predictions(np.stack([logits] * 4), labels)
    validation = Predictions(*arrays(1))
    mine = texts(build_report(own_results({"copied": copied, "drawn": drawn}, {"copied": validation})))
    assert not [phrase for phrase in ONLY_OF_RUNS if phrase in mine]
    assert mine.startswith("2 sets of predictions: 120 test examples")
    assert "copied: only 2 of 3 members have distinct logits." in mine
    assert "the guarantee requires that the validation examples of copied were not used for training" in mine
    assert "it is not known how the draws of drawn were made; they are used in the given order." in mine
    of_run = texts(build_report(runs[2:]))
    assert of_run.startswith("one run on digits:")
    assert "used to select epochs or members" in of_run
    assert "a member are independent" in of_run
    assert "not known" not in of_run
    assert "requires that the validation examples" not in of_run


def test_runs_and_other_predictions_are_counted_separately(runs: list[Result]) -> None:
    other = replace(runs[0], name="other", run=None)
    assert counted([*runs[:2], other]) == "2 runs and one set of predictions"
    assert counted([other]) == "one set of predictions"
    assert counted(runs[:1]) == "one run"


def test_calibration_maps_are_fitted_to_given_validation_predictions() -> None:
    test, validation = Predictions(*arrays()), Predictions(*arrays(1, images=300))
    row = tables(own_results({"mine": test, "other": test}, {"mine": validation}))["posthoc-nll"].rows
    assert [cells["run"].value for cells in row] == ["mine"]
    assert row[0]["temperature"].value == pytest.approx(score(calibrate("temperature", validation, test)).nll)


def test_predictions_next_to_runs_get_no_values_of_them(runs: list[Result], paths: list[Path], tmp_path: Path) -> None:
    labels = runs[0].test.labels
    np.savez(tmp_path / "own.npz", logits=np.random.default_rng(0).normal(size=(len(labels), 10)), labels=labels)
    words = [f"mine={tmp_path / 'own.npz'}", *map(str, paths[:2])]
    results = read_results(words)
    assert [result.name for result in results] == ["mine", runs[0].name, runs[1].name]
    found = tables(results)
    rows = {row["run"].value: row for row in found["overview"].rows}
    assert "parameters" not in rows["mine"]
    assert rows[runs[0].name]["parameters"].value == runs[0].run.summary["parameters"]
    assert {row["run"].value for row in found["ledger"].rows} == {runs[0].name, runs[1].name}
    auroc = {name: row.get("auroc") for name, row in rows.items()}
    assert auroc["mine"] is None or auroc["mine"].value is None


def test_report_and_evaluate_accept_files_and_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits, labels = arrays()
    mine = {"mine": Predictions(logits, labels)}
    page = bayes_share.report(mine, tmp_path / "report.html", validation={"mine": Predictions(*arrays(1))})
    assert "120 test examples in 4 classes" in page.read_text()
    printed = bayes_share.evaluate(mine).splitlines()
    assert printed[0].split()[:4] == ["run", "accuracy", "[%]", "NLL"]
    nll = f"{score(mine['mine']).nll:.4f}"
    assert nll in printed[2]

    np.savez(tmp_path / "p.npz", logits=logits, labels=labels)
    np.savez(tmp_path / "v.npz", logits=arrays(1)[0], labels=labels)
    words = ["report", f"mine={tmp_path}/p.npz", "--validation", f"mine={tmp_path}/v.npz", "-o", f"{tmp_path}/a.html"]
    assert main(words) == 0
    assert nll in (tmp_path / "a.html").read_text()
    assert main(["evaluate", f"mine={tmp_path}/p.npz", "--picture", f"{tmp_path}/a.png"]) == 0
    assert nll in capsys.readouterr().out


@pytest.mark.usefixtures("unchecked")
def test_invalid_input_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, other = Predictions(*arrays()), Predictions(*arrays(images=7))
    cases: list[tuple[Any, Any, str]] = [
        ({}, None, "predictions must be Predictions(logits, labels), NumberPredictions, or a non-empty dict of these"),
        (good.logits, None, "or a non-empty dict of these by name, not Tensor"),
        ({"a": good.logits}, None, "expected Predictions(logits, labels), not Tensor"),
        ({"a": good, "b": other}, None, "a and b are predictions of different examples (their number,"),
        ({"a": good}, {"b": good}, "validation predictions are given for b, but there are only test predictions of a"),
        (
            {"a": good},
            {"a": Predictions(torch.zeros(3, 2), torch.zeros(3).long())},
            "predictions of a have 2 outputs (categorical), and its test predictions have 4 (categorical)",
        ),
    ]
    for predictions, validation, says in cases:
        with pytest.raises(InputError, match=re.escape(says)):
            bayes_share.report(predictions, tmp_path / "r.html", validation=validation)
    np.savez(tmp_path / "p.npz", logits=good.logits, labels=good.labels)
    file = f"{tmp_path}/p.npz"
    lines = [
        (["report", f"={file}"], "has no name before the '='"),
        (["report", file, f"p={file}"], "two files of predictions are called p"),
        (["report", file, "--validation", str(tmp_path)], "--validation takes files of predictions, NAME=FILE.npz"),
        (["report", f"a={file}", "--validation", file], "validation predictions are given for p"),
        (["report", file, "-o", file], f"-o {file} would overwrite p, which is read"),
        (
            ["evaluate", file, "--ood", "noise"],
            "--ood requires run folders, and p is a file of predictions: evaluate the runs separately",
        ),
        (
            ["evaluate", file, "--split", "validation"],
            "--split applies to run folders only: give the file of the predictions to score",
        ),
        (["evaluate", f"x={tmp_path}/none.npz"], "none.npz cannot be read: No such file"),
    ]
    before = (tmp_path / "p.npz").read_bytes()
    for words, says in lines:
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert not out
        assert says in err
        assert err.count("\n") == 1
    assert (tmp_path / "p.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]


def test_class_predictions_are_recognised_without_reading_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise AssertionError(path)

    np.savez(tmp_path / "p.npz", logits=arrays()[0], labels=arrays()[1])
    monkeypatch.setattr("bayes_share.evaluation.reading_predictions.read_class_predictions", refused)
    assert read_numbers({"p": tmp_path / "p.npz"}) == {}


def test_a_single_set_of_predictions_needs_no_name(tmp_path: Path) -> None:
    of_classes = Predictions(*arrays()), Predictions(*arrays(1))
    x = torch.linspace(-1, 1, 120)[:, None]
    state = fit_tensors(MAP(), Model(torch.nn.Linear(1, 1), Gaussian(0.5)), x, x, num_steps=1)
    found = predict_arguments(MAP(), state, x)
    of_numbers = NumberPredictions(found, x[:, 0]), NumberPredictions(found, x)  # a target may have an axis of its own
    for one, other in (of_classes, of_numbers):
        by_name = evaluate({"predictions": one}, {"predictions": other})
        assert "calibrated on" in by_name
        assert evaluate(one, other) == evaluate({"predictions": one}, other) == by_name
        page = report(one, tmp_path / "report.html", validation=other).read_text(encoding="utf-8")
        assert "calibrated on" in page
        with pytest.raises(InputError, match=r'\{"a": ..., "b": ...\}'):
            evaluate({"a": one, "b": one}, other)
    assert torch.equal(of_numbers[1].predictive.mean, of_numbers[0].predictive.mean)
