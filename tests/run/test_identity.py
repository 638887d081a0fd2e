"""A run is resumed or loaded only with its own data, options and checkpoints."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driver import Fault, Setting, command, ended_well, one_line, snapshot

from bayes_share.errors import InputError
from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.runs.config import RunConfig
from bayes_share.runs.loading import load_run
from bayes_share.runs.run import run

OPTIONS = ("map", "--epochs", "2", "--batch-size", "20", "--no-progress")
Arrays = dict[str, np.ndarray]


def write(path: Path, change: Callable[[Arrays], Arrays] = lambda arrays: arrays) -> None:
    rng = np.random.default_rng(0)
    arrays = {"images": rng.integers(0, 256, (120, 8, 8), dtype=np.uint8), "labels": np.arange(120) % 3}
    np.savez(path, **change(arrays))


CHANGES: dict[str, Callable[[Arrays], Arrays]] = {
    "other labels": lambda arrays: {**arrays, "labels": (arrays["labels"] + 1) % 3},
    "inverted images": lambda arrays: {**arrays, "images": 255 - arrays["images"]},
    "fewer images": lambda arrays: {name: values[:24] for name, values in arrays.items()},
    "more images": lambda arrays: {name: np.concatenate([values, values]) for name, values in arrays.items()},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a run on them that was interrupted in its second epoch, and a finished run; to be copied."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "d.npz")
    options = ("fit", *OPTIONS, "--data", f"npz:{folder / 'd.npz'}", "--out")
    setting = Setting(fault=Fault("step", 6, what="interrupt"))
    assert command(*options, folder / "half", setting=setting).code == 130
    ended_well(command(*options, folder / "finished"))
    return folder


@pytest.fixture
def data(made: Path) -> Path:
    """The path of the data of the runs, with the original contents."""
    write(made / "d.npz")
    return made / "d.npz"


@pytest.fixture
def half(made: Path, data: Path, tmp_path: Path) -> Path:
    """A run that was interrupted in its second epoch."""
    return Path(shutil.copytree(made / "half", tmp_path / "half"))


@pytest.fixture
def finished(made: Path, data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "finished", tmp_path / "finished"))


def resumed(out: Path) -> Any:
    return command("fit", "--resume", "--no-progress", "--out", out)


def save(run: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the latest checkpoint, and save it with a valid digest."""
    folder = run / "checkpoints"
    content = change(Checkpoints(folder).load(print) or {})
    shutil.rmtree(folder)
    Checkpoints(folder).save(1, content)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_run_is_not_resumed_with_other_data(change: Callable[[Arrays], Arrays], half: Path, data: Path) -> None:
    before = snapshot(half)
    write(data, change)
    line = one_line(resumed(half), 2)
    assert f"the data npz:{data} are not the data that the run in {half} was trained on: restore" in line
    assert snapshot(half) == before
    write(data)
    ended_well(resumed(half))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_finished_run_is_not_evaluated_with_other_data(
    change: Callable[[Arrays], Arrays], finished: Path, data: Path
) -> None:
    write(data, change)
    before = snapshot(finished)
    outcome = command("evaluate", finished, "--ood", "noise", "--picture", finished.parent / "x.png")
    assert outcome.code == 2
    assert "was trained on: restore them, or start a new run" in outcome.err.splitlines()[-1]
    assert snapshot(finished) == before


def test_no_command_uses_other_data_for_a_finished_run(finished: Path, data: Path) -> None:
    write(data, CHANGES["inverted images"])
    before = snapshot(finished)
    for options in (["--corruptions", "rotate"], ["--arviz", finished.parent / "x.nc"]):
        outcome = command("evaluate", finished, *options, "--picture", finished.parent / "x.png")
        assert outcome.code == 2
        assert "was trained on: restore them, or start a new run" in outcome.err.splitlines()[-1]
    page = finished.parent / "page.html"
    ended_well(command("report", finished, "-o", page))
    assert re.search("The images cannot be shown: the data .* are not the", page.read_text())
    assert snapshot(finished) == before


def test_a_checkpoint_of_another_run_is_refused(half: Path, data: Path, tmp_path: Path) -> None:
    for name, value in (("seed", "1"), ("model", "lenet"), ("learning-rate", "0.01")):
        out = tmp_path / name
        setting = Setting(fault=Fault("step", 6, what="interrupt"))
        command("fit", *OPTIONS, f"--{name}", value, "--data", f"npz:{data}", "--out", out, setting=setting)
        shutil.rmtree(half / "checkpoints")
        shutil.copytree(out / "checkpoints", half / "checkpoints")
        there = f"{half / 'checkpoints'} belongs to a run with {name.replace('-', '_')} {value}, and config.yaml says"
        assert there in one_line(resumed(half), 2)
        with pytest.raises(InputError, match=r"cannot be loaded: .* belongs to a run with"):
            load_run(half)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda saved: {**saved, "step": -5}, "its step is -5, and the training has 8 steps"),
        (lambda saved: {**saved, "step": 10**12}, "its step is 1000000000000, and the training has 8 steps"),
        (lambda saved: {**saved, "step": "6"}, "its step is '6'"),
        (lambda saved: {**saved, "step": True}, "its step is True"),
        (lambda saved: {**saved, "is_finished": True}, "it is marked as finished at step 6 of 8"),
        (lambda saved: {**saved, "history": []}, "its history has 0 epochs after step 6"),
        (lambda saved: {**saved, "history": [{"epoch": 0}]}, "record 0 must contain epoch, loss"),
        (lambda saved: {**saved, "seconds": float("nan")}, "its training time is nan seconds"),
        (lambda saved: {**saved, "sums": torch.zeros(2)}, "its sums over the unfinished epoch"),
        (lambda saved: {**saved, "sums": None}, "AttributeError"),
        (lambda saved: {**saved, "state": {}}, "KeyError"),
        (lambda saved: {**saved, "state": [1]}, "TypeError"),
        (
            lambda saved: {**saved, "run": 3},
            "does not say which run it belongs to: restore the file that the run wrote",
        ),
        (lambda saved: {"run": saved["run"]}, "KeyError: 'step'"),
    ],
)
def test_an_invalid_checkpoint_gives_a_one_line_error(change: Callable[..., Any], says: str, half: Path) -> None:
    save(half, change)
    line = one_line(resumed(half), 2)
    assert says in line
    assert str(half / "checkpoints") in line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\x80\x02]q\x00."])
def test_a_file_that_is_not_a_checkpoint_gives_a_one_line_error(content: bytes, half: Path) -> None:
    path = half / "checkpoints" / f"step-000000007-{hashlib.sha256(content).hexdigest()[:16]}.pt"
    path.write_bytes(content)
    outcome = resumed(half)
    assert "Traceback" not in outcome.err
    assert path.name in outcome.err
    # An empty file counts as damaged, and the run resumes from the checkpoint before it.
    assert outcome.code == (0 if not content else 2)


def test_a_changed_config_is_detected(half: Path, finished: Path) -> None:
    for out in (half, finished):
        config = out / "config.yaml"
        config.write_text(config.read_text().replace("seed: 0\nnum", "seed: 1\nnum"))
    assert f"{half / 'checkpoints'} belongs to a run with seed 0, and config.yaml says 1" in one_line(resumed(half), 2)
    for arguments in (["evaluate"], ["report"], ["fit", "--resume", "--out"]):
        line = one_line(command(*arguments, finished), 2)
        assert f"{finished / 'summary.json'} belongs to a run with seed 0, and config.yaml says 1: restore" in line


def test_runs_without_a_recorded_identity_are_accepted_with_a_message(half: Path, finished: Path) -> None:
    save(half, lambda saved: {name: value for name, value in saved.items() if name != "run"})
    outcome = resumed(half)
    ended_well(outcome)
    assert outcome.err.count(f"{half} was started by an older version that did not record its options and data") == 1
    summary = json.loads((finished / "summary.json").read_text())
    del summary["run"]
    (finished / "summary.json").write_text(json.dumps(summary))
    ended_well(command("evaluate", finished))


def test_a_run_of_another_version_is_reported(half: Path) -> None:
    save(half, lambda saved: {**saved, "run": {**saved["run"], "version": "0.0.1"}})
    outcome = resumed(half)
    ended_well(outcome)
    assert f"{half} was started by bayes-share 0.0.1; this is" in outcome.err


def test_options_that_do_not_affect_results_are_not_compared(tmp_path: Path) -> None:
    made = run(RunConfig(epochs=1, batch_size=400), tmp_path / "run", progress=False)
    made.config.write_text(made.config.read_text().replace("data_dir: data", "data_dir: elsewhere"))
    assert load_run(made.path).step == 3


def test_files_of_another_run_are_refused(data: Path, tmp_path: Path) -> None:
    made = [tmp_path / "0", tmp_path / "1"]
    files = ["predictions/test.npz", "factors.npz", "predictions/train.npz", "predictions/ood/noise.npz", "metrics.csv"]
    for out in made:
        options = ("--ensemble-size", "2", "--seed", out.name, "--data", f"npz:{data}", "--out", out)
        ended_well(command("fit", *OPTIONS, *options))
        ended_well(command("evaluate", out, "--ood", "noise", "--ood-images", "5"))
    ended_well(command("report", made[0], "-o", tmp_path / "page.html"))
    for file in files:
        own = (made[0] / file).read_bytes()
        shutil.copy(made[1] / file, made[0] / file)
        assert str(made[0] / file) in one_line(command("report", made[0], "-o", tmp_path / "page.html"), 2)
        (made[0] / file).write_bytes(own)
    ended_well(command("report", made[0], "-o", tmp_path / "page.html"))


def test_predictions_for_another_set_of_images_are_refused(finished: Path) -> None:
    for source, count in (("noise", "5"), ("photographs", "7")):
        ended_well(command("evaluate", finished, "--ood", source, "--ood-images", count))
    there = finished / "predictions" / "ood"
    shutil.copy(there / "photographs.npz", there / "noise.npz")
    for arguments in (["evaluate", finished, "--ood", "noise", "--ood-images", "5"], ["report", finished]):
        outcome = command(*arguments, *(["-o", finished.parent / "x.html"] if arguments[0] == "report" else []))
        assert outcome.code == 2
        assert f"{there / 'noise.npz'} has 7 images, and sets.json in its folder has 5" in outcome.err
