"""Conformal sets in ``evaluate`` and in reports, calibrated on examples that the run did not use for selection."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from driver import command, ended_well, one_line

from bayes_share.analysis.conformal import Found, set_tables, validation_left
from bayes_share.errors import InputError
from bayes_share.evaluation.conformal import halves, set_coverage
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.inference.methods.distill.distill import Distill
from bayes_share.io.files import write_atomically
from bayes_share.reports.conformal import conformal
from bayes_share.reports.document import Table
from bayes_share.reports.gather import read_runs
from bayes_share.reports.results import Result
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_yaml
from bayes_share.runs.run_folder import RunFolder
from bayes_share.runs.validation_images import scored_images, unchosen


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    more: dict[str, Sequence[str]] = {"plain": (), "patient": ("--patience", "1"), "partly": ("--patience", "1")}
    for name, options in more.items():
        partly = ("--validation-images", "60") if name == "partly" else ()
        ended_well(command("fit", "map", "--epochs", "2", "--no-progress", *options, *partly, "--out", folder / name))
    return folder


def test_evaluate_shows_conformal_sets(runs: Path) -> None:
    found = command("evaluate", runs / "plain", "--conformal", "0.2", "0.1")
    ended_well(found)
    validation, test = (
        read_class_predictions(runs / f"plain/predictions/{split}.npz") for split in ("validation", "test")
    )
    coverage = set_coverage(halves(validation).sets("aps", test, 0.2), test.labels).overall.coverage.value
    (row,) = [words for line in found.out.splitlines() if (words := line.split()[1:])[:3] == ["APS", "0.8", "89"]]
    assert row[3] == f"{coverage:.4g}"


def test_scores_come_first_and_conformal_sets_last_in_one_table(runs: Path) -> None:
    found = command("evaluate", runs / "plain", "--conformal", "0.2", "0.1", "--diagnostics")
    ended_well(found)
    titles = ("accuracy [%]", "Parameters, and FLOPs", "elpd [nat]", "Conformal sets:")
    places = [found.out.index(title) for title in titles]
    assert places == sorted(places)
    sets = found.out[places[-1] :]
    assert sum(line.startswith("----") for line in sets.splitlines()) == 1
    assert sum(" LAC " in line or " APS " in line for line in sets.splitlines() if "%" not in line) == 4


@pytest.mark.parametrize("is_empty", [False, True])
def test_empty_sets_are_explained_if_there_are_any(is_empty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier is right and certain for 39 of 40 examples; a threshold of 0.9 admits no class of the last one."""
    probs = torch.tensor([[0.99, 0.01]]).repeat(40, 1)
    if is_empty:
        probs[0] = torch.tensor([0.6, 0.4])
    sets = probs >= 0.9
    coverage = set_coverage(sets, torch.zeros(40, dtype=torch.int64))
    found = [Found("mine", "LAC", 0.1, 20, coverage, ("0", "1"))]
    assert ("an empty set counts as not covering the right class" in set_tables(found)) is is_empty
    monkeypatch.setattr("bayes_share.reports.conformal.sets_at_levels", lambda *_: iter(found))
    predictions = Predictions(probs.log(), torch.zeros(40, dtype=torch.int64))
    section = conformal([Result("mine", predictions, predictions)])
    assert section is not None
    assert any("an empty set counts as not covering the right class" in text for text in section.lead) is is_empty


def test_a_run_without_unused_validation_images_is_refused(runs: Path) -> None:
    found = command("evaluate", runs / "plain", runs / "patient", "--conformal")
    assert not found.out
    assert (
        "--patience 1 selected the epoch on all 179: fit without it, or with --validation-images 89 to leave"
        in one_line(found, 2)
    )
    left = validation_left(RunFolder(runs / "partly"))
    assert len(left.labels) == 119


def test_the_report_explains_missing_conformal_sets(runs: Path) -> None:
    section = conformal(read_runs([runs / "plain", runs / "patient", runs / "partly"]))
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert {row["run"].value for row in table.rows} == {"plain", "partly"}
    assert "patient: conformal prediction requires validation examples that were not used for selection" in table.note
    for row in table.rows:
        low, aim, high = (row[key].value for key in ("chance_low", "aim", "chance_high"))
        assert low < aim < high  # type: ignore[operator]
    assert conformal(read_runs([runs / "patient"])).blocks == []


def test_examples_used_for_selection_are_excluded() -> None:
    config = RunConfig()
    everything = torch.arange(100)
    assert torch.equal(unchosen(config, 100), everything)
    assert torch.equal(unchosen(replace(config, validation_images=30), 100), everything)
    assert torch.equal(unchosen(replace(config, keep_members=1, ensemble_size=2, patience=3), 100), everything)
    partly = replace(config, patience=3, validation_images=30)
    both = torch.cat([unchosen(partly, 100), scored_images(partly, 100)])
    assert torch.equal(both.sort().values, everything)
    assert len(unchosen(partly, 100)) == 70
    with pytest.raises(
        InputError,
        match="patience 3 selected the epoch on all 100",
    ):
        unchosen(replace(config, patience=3, validation_images=100), 100)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (RunConfig(), None),
        (RunConfig(patience=3), "the teacher .* was selected on them, by patience or keep_members"),
        (RunConfig(ensemble_size=2, keep_members=1), "the teacher .* was selected on them, by patience"),
        (None, "it is not known whether the teacher was selected on them: the teacher"),
    ],
)
def test_examples_used_to_select_the_teacher_are_excluded(
    teacher: RunConfig | None, message: str | None, tmp_path: Path
) -> None:
    if teacher is not None:
        write_atomically(tmp_path / "config.yaml", to_yaml(teacher).encode())
    student = RunConfig(algorithm=Distill(teacher=str(tmp_path)))
    if message is None:
        assert len(unchosen(student, 10)) == 10
        return
    with pytest.raises(InputError, match=message) as caught:
        unchosen(student, 10)
    assert "\n" not in str(caught.value)


def test_a_student_that_names_itself_as_its_teacher_is_refused(tmp_path: Path) -> None:
    student = RunConfig(algorithm=Distill(teacher=str(tmp_path)))
    write_atomically(tmp_path / "config.yaml", to_yaml(student).encode())
    with pytest.raises(InputError, match="names itself as its own teacher"):
        unchosen(student, 10)
