"""``evaluate --conformal`` and the report: calibrated on nothing that a run has chosen on, and refused otherwise."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from driver import command, ended_well, one_line

from bayes_share.analysis.conformal import validation_left
from bayes_share.errors import InputError
from bayes_share.evaluation.conformal import halves, set_coverage
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.inference.methods.distill.distill import Distill
from bayes_share.io.files import write_atomically
from bayes_share.reports.conformal import conformal
from bayes_share.reports.document import Table
from bayes_share.reports.gather import read_runs
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


def test_the_sets_of_a_run_are_shown(runs: Path) -> None:
    found = command("evaluate", runs / "plain", "--conformal", "0.2", "0.1")
    ended_well(found)
    validation, test = (
        read_class_predictions(runs / f"plain/predictions/{split}.npz") for split in ("validation", "test")
    )
    coverage = set_coverage(halves(validation).sets("aps", test, 0.2), test.labels).overall.coverage.value
    (row,) = [words for line in found.out.splitlines() if (words := line.split()[1:])[:3] == ["APS", "0.8", "89"]]
    assert row[3] == f"{coverage:.4g}"
    assert "By class, with 95 % intervals:" in found.out
    assert "By set size:" in found.out


def test_a_run_that_chose_on_all_validation_images_is_refused(runs: Path) -> None:
    found = command("evaluate", runs / "plain", runs / "patient", "--conformal")
    assert not found.out
    assert (
        "--patience 1 selected the epoch on all 179: fit without it, or with --validation-images 89 to leave"
        in one_line(found, 2)
    )
    left = validation_left(RunFolder(runs / "partly"))
    assert len(left.labels) == 119


def test_the_report_has_what_there_is_and_says_why_the_rest_is_missing(runs: Path) -> None:
    section = conformal(read_runs([runs / "plain", runs / "patient", runs / "partly"]))
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert {row["run"].value for row in table.rows} == {"plain", "partly"}
    assert "patient: conformal prediction requires validation examples that were not used for selection" in table.note
    for row in table.rows:
        low, aim, high = (row[key].value for key in ("chance_low", "aim", "chance_high"))
        assert low < aim < high  # type: ignore[operator]
    assert conformal(read_runs([runs / "patient"])).blocks == []


def test_what_was_chosen_on_is_left_out() -> None:
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
def test_what_the_teacher_chose_on_counts(teacher: RunConfig | None, message: str | None, tmp_path: Path) -> None:
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
