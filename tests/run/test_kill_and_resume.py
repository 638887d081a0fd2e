"""A run that is killed at any moment and resumed gives the same results as an uninterrupted one."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import FORGOTTEN, KINDS, Fault, Setting, ended_well, fit, run_contents, snapshot
from states import differences
from thinned import alternating

Expected = Callable[[str], dict[str, Any]]

KILLS = {
    "before the first step": Fault("step", 1),
    "before config.yaml is in place": Fault("replace", 1, "config.yaml"),
    "after config.yaml": Fault("replace", 1, "config.yaml", after=True),
    "in the middle of an epoch": Fault("step", 21),
    "at the last step of an epoch": Fault("step", 28, after=True),
    "before the first checkpoint is on the disk": Fault("fsync", 2),
    "before the second checkpoint is in place": Fault("replace", 2, "step-"),
    "between the second checkpoint and metrics.csv": Fault("replace", 2, "step-", after=True),
    "before metrics.csv is in place": Fault("replace", 2, "metrics.csv"),
    "between the checkpoint of the last epoch and metrics.csv": Fault("replace", 3, "step-", after=True),
    "before the checkpoint that marks training as finished": Fault("replace", 4, "step-"),
    "after the checkpoint that marks training as finished": Fault("replace", 4, "step-", after=True),
    "before the validation predictions are in place": Fault("replace", 1, "validation.npz"),
    "between the predictions": Fault("replace", 1, "validation.npz", after=True),
    "before the test predictions are in place": Fault("replace", 1, "test.npz"),
    "before summary.json is in place": Fault("replace", 1, "summary.json"),
    "after everything": Fault("replace", 1, "summary.json", after=True),
}


def killed(kind: str, out: Path, fault: Fault, *arguments: str, forget: str | None = None) -> None:
    outcome = fit(kind, out, *arguments, setting=Setting(fault=fault, forget=forget))
    assert outcome.code == -signal.SIGKILL, outcome.err


@pytest.mark.parametrize(("kind", "fault"), alternating([*KINDS], KILLS))
def test_a_killed_run_resumes_to_the_same_results(kind: str, fault: Fault, tmp_path: Path, expected: Expected) -> None:
    out = tmp_path / "run"
    killed(kind, out, fault)
    if fault.name != "summary.json" or not fault.after:
        assert not (out / "summary.json").exists()
    ended_well(fit(kind, out, "--resume"))
    assert differences(run_contents(out), expected(kind)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_several_times_gives_the_same_results(
    kind: str, tmp_path: Path, expected: Expected
) -> None:
    out = tmp_path / "run"
    for fault in (Fault("step", 5), Fault("step", 20), Fault("replace", 1, "step-"), Fault("step", 16)):
        killed(kind, out, fault, "--resume")
    ended_well(fit(kind, out, "--resume"))
    assert differences(run_contents(out), expected(kind)) == []


def test_a_run_resumes_from_a_checkpoint_within_an_epoch(tmp_path: Path, expected: Expected) -> None:
    out = tmp_path / "run"
    every_step = ["--checkpoint-minutes", "0"]
    killed("ensemble of 4", out, Fault("step", 20), *every_step)
    steps = sorted(path.name.split("-")[1] for path in (out / "checkpoints").iterdir())
    assert steps == ["000000018", "000000019"]
    ended_well(fit("ensemble of 4", out, "--resume"))
    found = run_contents(out)
    found["config"] = found["config"].replace("checkpoint_minutes: 0.0", "checkpoint_minutes: 10.0")
    assert differences(found, expected("ensemble of 4")) == []


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed("single network", out, KILLS["before the second checkpoint is in place"])
    assert [name for name in snapshot(out) if name.endswith(".tmp")]
    ended_well(fit("single network", out, "--resume"))
    assert not [name for name in snapshot(out) if name.endswith(".tmp")]


@pytest.mark.parametrize("forget", FORGOTTEN)
def test_the_comparison_detects_incomplete_checkpoints(forget: str, tmp_path: Path, expected: Expected) -> None:
    out = tmp_path / "run"
    killed("ensemble of 4", out, KILLS["in the middle of an epoch"], forget=forget)
    ended_well(fit("ensemble of 4", out, "--resume"))
    found = differences(run_contents(out), expected("ensemble of 4"))
    assert "/predictions/test/logits" in found
    assert any(path.startswith("/checkpoint/state/model") for path in found)
    assert any(path.startswith("/metrics") for path in found)
