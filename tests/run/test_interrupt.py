"""Ctrl-C and SIGTERM: a run stops after the current step, saves a checkpoint, and says so in one line."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import KINDS, Fault, Setting, command, ended_well, fit, one_line, run_contents, start
from states import differences
from thinned import alternating

from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run

Expected = Callable[[str], dict[str, Any]]


def steps(out: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (out / "checkpoints").iterdir())


@pytest.mark.parametrize(("step", "what", "kind"), alternating([1, 20, 28, 42], ["interrupt", "terminate"], [*KINDS]))
def test_an_interrupted_run_resumes_to_the_same_results(
    kind: str, what: str, step: int, tmp_path: Path, expected: Expected
) -> None:
    out = tmp_path / "run"
    line = one_line(fit(kind, out, setting=Setting(fault=Fault("step", step, what=what))), 130)
    assert f"stopped after step {step} of 42" in line
    assert "--resume" in line
    assert steps(out)[-1] == step
    ended_well(fit(kind, out, "--resume"))
    assert differences(run_contents(out), expected(kind)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_another_process_interrupts_a_run(number: int, tmp_path: Path, expected: Expected) -> None:
    out = tmp_path / "run"
    arguments = ("fit", *KINDS["ensemble of 4"], "--out", out)
    child = start(*arguments, setting=Setting(slow=0.1))
    until = time.monotonic() + 30
    while not (out / "config.yaml").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(child.process.pid, number)
    line = one_line(child.outcome(), 130)
    assert f"stopped after step {steps(out)[-1]} of 42" in line
    assert steps(out)[-1] < 42
    ended_well(fit("ensemble of 4", out, "--resume"))
    assert differences(run_contents(out), expected("ensemble of 4")) == []


@pytest.mark.parametrize("what", ["interrupt", "terminate"])
@pytest.mark.parametrize("name", ["validation.npz", "test.npz", "summary.json"])
def test_a_signal_while_results_are_written_loses_nothing(
    what: str, name: str, tmp_path: Path, expected: Expected
) -> None:
    out = tmp_path / "run"
    line = one_line(fit("single network", out, setting=Setting(fault=Fault("replace", 1, name, what=what))), 130)
    assert line == "bayes-share: stopped after training, while predicting: resume with --resume\n"
    assert not list(out.rglob("*.tmp"))
    ended_well(fit("single network", out, "--resume"))
    assert differences(run_contents(out), expected("single network")) == []


@pytest.mark.parametrize("what", ["interrupt", "terminate"])
def test_a_signal_during_other_commands_leaves_no_partial_files(
    what: str, tmp_path: Path, untouched: Callable[[str], Path]
) -> None:
    run = Path(shutil.copytree(untouched("single network"), tmp_path / "run"))
    wanted = ("evaluate", run, "--ood", "noise", "--ood-images", "20")
    outcome = command(*wanted, setting=Setting(fault=Fault("replace", 1, "noise.npz", what=what)))
    assert outcome.code == 130
    assert outcome.err.splitlines()[-1] == f"bayes-share: {run}: stopped; the same command resumes"
    setting = Setting(fault=Fault("replace", 1, "report.html", what=what))
    outcome = command("report", run, "-o", run / "report.html", setting=setting)
    assert (outcome.code, outcome.err.splitlines()[-1]) == (130, "bayes-share: stopped")
    assert not list(tmp_path.rglob("*.tmp"))
    ended_well(command(*wanted))


def test_signal_handlers_are_restored(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(RunConfig(epochs=1, batch_size=400), tmp_path / "run", progress=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
