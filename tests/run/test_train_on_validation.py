"""`--train-on-validation`: runs without held-out validation examples, as for many published figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from driver import Fault, Setting, command, ended_well, one_line, run_contents
from states import differences

from bayes_share.data import load_data
from bayes_share.data.tables.load import load_table
from bayes_share.reports.gather import read_runs
from bayes_share.runs.loading import load_run

WORDS = ["fit", "map", "--epochs", "2", "--train-on-validation", "--no-progress"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits."""
    out = tmp_path_factory.mktemp("all") / "run"
    ended_well(command(*WORDS, "--out", out))
    return out


def test_validation_images_join_the_training_images() -> None:
    split, joined = load_data("digits", split_seed=3), load_data("digits", split_seed=3, train_on_validation=True)
    assert (len(joined.train), len(joined.validation)) == (len(split.train) + len(split.validation), 0)
    assert torch.equal(joined.test.images, split.test.images)
    both = torch.cat([split.train.images, split.validation.images])
    assert torch.equal(joined.train.images, both)
    assert float(joined.mean) == pytest.approx(float(both.double().mean() / 255), rel=1e-5)


def test_it_can_be_combined_with_options_of_images() -> None:
    data = load_data("digits", hold_out=(3,), train_images=1200, image_size=4, train_on_validation=True)
    assert (data.train.images.shape, len(data.validation)) == ((1200, 1, 4, 4), 0)


@pytest.mark.parametrize("split_by", [None, "day", "group"])
def test_validation_rows_join_the_training_rows(split_by: str | None, tmp_path: Path) -> None:
    rows = [f"{i},{i % 7 / 7},2024-01-{i % 28 + 1:02},g{i % 9}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,day,group", *rows]))
    split = load_table(tmp_path / "t.csv", "y", split_by=split_by)
    joined = load_table(tmp_path / "t.csv", "y", split_by=split_by, train_on_validation=True)
    expected = sorted([*split.train.places.tolist(), *split.validation.places.tolist()])
    assert joined.train.places.tolist() == expected
    assert len(joined.validation) == 0
    assert torch.equal(joined.test.places, split.test.places)
    assert f"{len(expected)} training, 0 validation" in joined.description[0]


def test_a_run_has_no_validation_scores_and_no_validation_predictions(whole: Path) -> None:
    assert [file.name for file in (whole / "predictions").iterdir()] == ["test.npz"]
    assert not any(name.startswith("validation") for line in run_contents(whole)["metrics"] for name in line)
    training = load_run(whole)
    assert training.steps_per_epoch == (1260 + 180) // 64
    stored = np.load(whole / "predictions" / "test.npz")["logits"]
    assert torch.equal(training.predict(training.data.test), torch.from_numpy(stored))


def test_a_killed_run_resumes_to_the_same_results(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert command(*WORDS, "--out", out, setting=Setting(fault=Fault("step", 25))).code == -9
    ended_well(command("fit", "--resume", "--no-progress", "--out", out))
    assert differences(run_contents(out), run_contents(whole)) == []


def test_evaluate_and_report_work_without_validation_examples(whole: Path, tmp_path: Path) -> None:
    ended_well(command("evaluate", whole))
    ended_well(command("report", whole, "-o", tmp_path / "r.html"))
    page = (tmp_path / "r.html").read_text()
    assert "was trained with --train-on-validation" in page  # in place of conformal sets
    (result,) = read_runs([whole])
    assert result.validation is None


@pytest.mark.parametrize("words", [["--split", "validation"], ["--conformal"]])
def test_evaluate_options_that_need_validation_examples_are_an_error(words: list[str], whole: Path) -> None:
    text = one_line(command("evaluate", whole, *words), 2)
    assert "was trained with --train-on-validation, so it has no validation predictions" in text


@pytest.mark.parametrize("option", ["patience", "keep-members", "validation-images"])
def test_options_that_need_validation_examples_are_an_error(option: str, tmp_path: Path) -> None:
    text = one_line(command(*WORDS, f"--{option}", "2", "--ensemble-size", "4", "--out", tmp_path / "run"), 2)
    assert "requires validation examples, and --train-on-validation leaves none" in text


def test_a_run_on_a_table_predicts_and_reports(tmp_path: Path) -> None:
    rows = [f"{i % 13},{i % 7 + i % 13 / 10}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]))
    out, words = tmp_path / "run", ["--data", f"csv:{tmp_path / 't.csv'}", "--target", "y"]
    ended_well(command(*WORDS, *words, "--out", out))
    ended_well(command("report", out, "-o", tmp_path / "r.html"))
    ended_well(command("evaluate", out))
    assert "no validation predictions" in one_line(command("evaluate", out, "--conformal"), 2)
