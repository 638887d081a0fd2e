"""Commands that work on one run at the same time."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from driver import KINDS, Setting, command, ended_well, fit, run_contents, snapshot, start
from states import differences

from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.io.folder_lock import alone_in
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study.runner import check_runs

Untouched = Callable[[str], Path]


@pytest.fixture
def run(untouched: Untouched, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untouched("single network"), tmp_path / "run"))


def test_concurrent_commands_save_all_predicted_sets(run: Path) -> None:
    with alone_in(run):  # so that all wait after finding no predictions
        both = [start("evaluate", run, "--ood", name, "--ood-images", "20") for name in ("noise", "photographs")]
        same = start("evaluate", run, "--ood", "noise", "--ood-images", "20")
        for child in (*both, same):
            child.wait_for("waiting for another process")
    outcomes = [child.outcome() for child in (*both, same)]
    for outcome in outcomes:
        ended_well(outcome)
        assert outcome.err.count(f"{run}: waiting for another process that is working in it") == 1
    assert sorted(RunFolder(run).ood_sets()) == ["noise", "photographs"]
    assert sum("noise, 20 of 10,000 images" in outcome.err for outcome in outcomes) == 1


def test_reading_commands_need_no_lock_and_write_nothing(run: Path, tmp_path: Path) -> None:
    with alone_in(run):
        before = snapshot(run)
        ended_well(command("evaluate", run, "--picture", tmp_path / "a.png"))
        ended_well(command("report", run, "-o", tmp_path / "a.html"))
        ended_well(command("fit", "--resume", "--out", run))
        assert snapshot(run) == before


def test_a_run_in_progress_is_not_disturbed_by_other_commands(
    tmp_path: Path, expected: Callable[[str], dict[str, object]]
) -> None:
    out = tmp_path / "run"
    child = start("fit", *KINDS["single network"], "--out", out, setting=Setting(slow=0.15))
    until = time.monotonic() + 30
    while not (out / "config.yaml").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    (out / ".metrics.csv.0123456789abcdef.tmp").touch()  # as if the run were writing it
    for others in (("fit", "--resume", "--out", out), ("evaluate", out), ("evaluate", out, "--ood", "noise")):
        assert command(*others).code == 2
    check_runs({"run": read_run_config(out / "config.yaml")}, tmp_path, 1)  # as `study --resume` does
    assert (out / ".metrics.csv.0123456789abcdef.tmp").exists()
    (out / ".metrics.csv.0123456789abcdef.tmp").unlink()
    ended_well(child.outcome())
    assert differences(run_contents(out), expected("single network")) == []


def test_only_temporary_files_of_runs_are_removed(tmp_path: Path) -> None:
    out, token = tmp_path / "run", "0123456789abcdef"
    (out / "predictions").mkdir(parents=True)
    own = [out / f".config.yaml.{token}.tmp", out / "predictions" / f".test.npz.{token}.tmp"]
    others = [out / f".page.html.{token}.tmp", out / ".mine.tmp"]
    for path in own:
        path.touch()
    shutil.rmtree(out / "predictions")
    ended_well(fit("single network", out))  # a folder with only temporary files counts as empty
    for path in (*own, *others):
        path.touch()
    (out / "summary.json").unlink()
    ended_well(fit("single network", out, "--resume"))
    assert [path.exists() for path in (*own, *others)] == [False, False, True, True]


def test_a_checkpoint_replaced_while_reading_is_not_reported_as_damaged(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {"step": 0, "weights": torch.zeros(1000)})
    is_over = threading.Event()

    def save() -> None:
        for step in range(1, 300):
            checkpoints.save(step, {"step": step, "weights": torch.zeros(1000)})
        is_over.set()

    thread = threading.Thread(target=save)
    thread.start()
    said: list[str] = []
    while not is_over.is_set():
        assert checkpoints.load(said.append) is not None
    thread.join()
    assert said == []


def test_a_run_is_loaded_while_its_checkpoints_are_replaced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, folder = Path.stat, run / "checkpoints"
    saved = Checkpoints(folder).load(print) or {}

    def replaced(path: Path, **options: bool) -> os.stat_result:
        if path.parent == folder and path.name.startswith("step-"):
            monkeypatch.undo()
            shutil.rmtree(folder)
            Checkpoints(folder).save(42, saved)
        return stat(path, **options)

    shutil.rmtree(folder)
    Checkpoints(folder).save(41, saved)
    monkeypatch.setattr(Path, "stat", replaced)
    assert load_run(run).step == 42


def images(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    np.savez(path, images=rng.integers(0, 256, (30, 8, 8), dtype=np.uint8))


def test_a_changed_set_is_predicted_again_with_a_message(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "x.npz"
    images(source, 0)
    wanted = ("evaluate", run, "--ood", f"npz:{source}")
    ended_well(command(*wanted))
    logits = [np.load(run / "predictions" / "ood" / "x.npz")["logits"]]
    assert "30 images" not in command(*wanted).err
    images(source, 1)
    os.utime(source, (1, 1))
    outcome = command(*wanted)
    ended_well(outcome)
    assert f"npz:{source} has changed since it was predicted, and is predicted again" in outcome.err
    logits.append(np.load(run / "predictions" / "ood" / "x.npz")["logits"])
    assert not np.array_equal(*logits)

    path = run / "predictions" / "ood" / "sets.json"
    entries = json.loads(path.read_text())
    del entries["x"]["stamp"]  # older versions recorded none
    path.write_text(json.dumps(entries))
    os.utime(source, (2, 2))
    assert "x, 30 images" not in command(*wanted).err
    source.unlink()
    ended_well(command(*wanted))
