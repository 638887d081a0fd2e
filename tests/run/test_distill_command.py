"""``bayes-share fit distill``: a run as the teacher, which is identified by its contents rather than its path."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from driver import Fault, Setting, command, ended_well, one_line, run_contents, snapshot
from states import differences

from bayes_share.data import load_data
from bayes_share.errors import InputError
from bayes_share.inference import Distill, fit, predict
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from bayes_share.runs.config import RunConfig
from bayes_share.runs.loading import load_run
from bayes_share.runs.run import run

FEW = ["--epochs", "2", "--batch-size", "180", "--model", "mlp1_16", "--no-progress"]
STUDENT = [*FEW, "--ensemble-size", "3", "--augment", "crop", "--norm", "batch"]


def student(out: Path, teacher: Path, *options: str) -> list[str | Path]:
    return ["fit", "distill", *STUDENT, "--teacher", teacher, "--out", out, *options]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher and its student."""
    folder = tmp_path_factory.mktemp("taught")
    ended_well(command("fit", "deep-ensemble", "--networks", "2", *FEW, "--out", folder / "deep"))
    ended_well(command(*student(folder / "student", folder / "deep")))
    return folder


@pytest.fixture
def copied(taught: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taught, tmp_path / "copied"))


def test_a_student_is_evaluated_without_its_teacher(copied: Path) -> None:
    """It can also be loaded, but training cannot continue."""
    before = snapshot(copied / "deep")
    deep = load_run(copied / "deep")
    loaded = load_run(copied / "student")
    assert snapshot(copied / "deep") == before
    assert loaded.predict(loaded.data.test).shape == (1, 3, 358, 10)
    assert loaded.state.num_parameters < deep.state.num_parameters
    with pytest.raises(InputError, match="distillation requires a teacher"):
        loaded.algorithm.trainings(loaded.state)
    shutil.rmtree(copied / "deep")
    ended_well(command("evaluate", copied / "student", "--ood", "noise", "--ood-images", "50"))
    with np.load(copied / "student" / "predictions" / "test.npz") as arrays:
        found = torch.from_numpy(arrays["logits"])
    ended_well(command("report", copied / "student", "--out", copied / "report.html"))
    assert "distill of map by sgd, 3 members" in (copied / "report.html").read_text()
    again = load_run(copied / "student").predict(loaded.data.test)
    torch.testing.assert_close(again, found, rtol=1e-4, atol=1e-4)


def test_the_command_and_fit_give_the_same_student(taught: Path, tmp_path: Path) -> None:
    """The teacher of `fit` is a path or a loaded run."""
    config = RunConfig(
        Distill(teacher=str(taught / "deep")),
        augment="crop",
        model="mlp1_16",
        ensemble_size=3,
        epochs=2,
        batch_size=180,
    )
    data = config.load_data()
    run(config, tmp_path / "run", progress=False)
    expected = load_run(tmp_path / "run")
    for teacher in (taught / "deep", str(taught / "deep"), load_run(taught / "deep"), None):
        algorithm = config.algorithm if teacher is None else Distill()
        found = fit(algorithm, config.build(data), data, 2, 180, progress=False, teacher=teacher)
        assert differences(found.state_dict(), expected.state.state_dict()) == []
    x = data.normalise(data.test.images)
    assert torch.equal(predict(Distill(), found, x), expected.predict(data.test))


def test_a_killed_student_resumes_with_a_moved_teacher(copied: Path) -> None:
    out = copied / "killed"
    command(*student(out, copied / "deep"), setting=Setting(fault=Fault("step", 10)))
    assert list((out / "checkpoints").iterdir())
    (copied / "deep").rename(copied / "moved")
    line = one_line(command("fit", "--resume", "--no-progress", "--out", out), 2)
    assert "the teacher: " in line
    assert "is not a run: there is no such folder" in line
    ended_well(command("fit", "--resume", "--no-progress", "--out", out, "--teacher", copied / "moved"))
    there, wanted = (run_contents(run) for run in (out, copied / "student"))
    assert differences(without_teacher_path(there), without_teacher_path(wanted)) == []


def without_teacher_path(found: dict[str, object]) -> dict[str, object]:
    return {**found, "config": re.sub(r"(?m)^teacher: .*$", "", str(found["config"]))}


def test_a_student_is_not_resumed_with_another_teacher(copied: Path) -> None:
    out = copied / "killed"
    command(*student(out, copied / "deep"), setting=Setting(fault=Fault("step", 10)))
    before = snapshot(out)
    ended_well(command("fit", "deep-ensemble", "--networks", "2", *FEW, "--seed", "1", "--out", copied / "other"))
    line = one_line(command("fit", "--resume", "--out", out, "--teacher", copied / "other"), 2)
    assert "was started with another teacher: give the folder of that teacher with" in line
    shutil.rmtree(copied / "deep")
    (copied / "other").rename(copied / "deep")
    assert "was started with another teacher: give the folder of that teacher with" in one_line(
        command("fit", "--resume", "--out", out), 2
    )
    assert snapshot(out) == before


def without_config(deep: Path) -> None:
    (deep / "config.yaml").unlink()


def unfinished(deep: Path) -> None:
    (deep / "summary.json").unlink()


def without_checkpoints(deep: Path) -> None:
    shutil.rmtree(deep / "checkpoints")


def all_damaged(deep: Path) -> None:
    for path in (deep / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])


def last_damaged(deep: Path) -> None:
    latest = max((deep / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    latest.write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "deep is not a run: there is no such folder"),
        (without_config, "deep is not a run: it has no config.yaml"),
        (unfinished, "the run in .*deep is not finished: resume it with bayes-share fit --resume --out .*deep"),
        (without_checkpoints, "the checkpoint of the last step of .*deep is damaged or missing"),
        (all_damaged, "the checkpoint of the last step of .*deep is damaged or missing"),
        (last_damaged, "the checkpoint of the last step of .*deep is damaged or missing"),
    ],
)
def test_an_invalid_teacher_gives_an_error_before_training(
    change: Callable[[Path], None], message: str, copied: Path
) -> None:
    change(copied / "deep")
    outcome = command(*student(copied / "new", copied / "deep"))
    assert outcome.code == 2
    last = outcome.err.splitlines()[-1]
    assert re.search(f"bayes-share: the teacher: .*{message}", last), outcome.err
    assert not (copied / "new").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--split-seed", "1"],
            r"other examples of digits \(split_seed 0\), and the student",
        ),
        (
            ["--hold-out", "[9]"],
            r"other examples of digits \(split_seed 0\), and the student",
        ),
        (["--data", "npz:other.npz"], "was trained on digits, and its student on other data, npz:"),
    ],
)
def test_a_teacher_trained_on_other_images_is_refused(
    options: list[str], message: str, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied)
    labels = np.arange(300) % 10
    np.savez(copied / "other.npz", images=np.zeros((300, 8, 8), np.uint8), labels=labels)
    assert re.search(message, one_line(command(*student(copied / "new", copied / "deep", *options)), 2))
    assert not (copied / "new").exists()


def test_fit_refuses_a_teacher_trained_on_other_images(taught: Path) -> None:
    network = mlp((16,), num_classes=10, in_channels=1, image_size=(8, 8))
    with pytest.raises(
        InputError, match=r"\), and the student must not be validated on them: use the same split for both"
    ):
        fit(Distill(), Model(network), load_data("digits", split_seed=1), 1, progress=False, teacher=taught / "deep")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["distill"], "distillation requires a teacher: .* or on the command line --teacher RUN"),
        (
            ["distill", "--of", "deep-ensemble"],
            "distill cannot use deep-ensemble as its inner algorithm",
        ),
        (
            ["deep-ensemble", "--of", "distill"],
            "deep-ensemble cannot use distill as its inner algorithm, since distill has an inner algorithm itself",
        ),
        (["distill", "--of", "sgld"], "Distill cannot run SGLD: a chain samples the posterior of the labels"),
        (["distill", "--teacher", "deep", "--alpha", "2"], "alpha must be from 0 to 1, and is 2"),
        (["distill", "--teacher", "deep", "--perturbation", "odds"], "--perturbation must be 'confident_ods', 'ods'"),
        (["distill", "--teacher", "x" * 300], "cannot be a run: File name too long"),
    ],
)
def test_invalid_options_give_a_one_line_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    line = one_line(command("fit", *arguments, *FEW, "--out", tmp_path / "new"), 2)
    assert re.search(message, line)
    assert not (tmp_path / "new").exists()


def test_a_student_can_be_a_teacher(copied: Path) -> None:
    shutil.rmtree(copied / "deep")
    ended_well(command(*student(copied / "next", copied / "student", "--of", "ivon", "--norm", "none")))
    assert load_run(copied / "next").algorithm.tempering(1260) is not None
