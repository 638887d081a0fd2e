"""``torchrun -m bayes_share fit``: two processes give the results of one, also when killed, stopped and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from driver import command, ended_well

from bayes_share.runs.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found by /proc")

OPTIONS = ("--data", "digits", "--model", "mlp1_64", "--ensemble-size", "2", "--batch-size", "50", "--no-progress")
LONG = ("--epochs", "16", "--checkpoint-minutes", "0.0005", "--augment", "crop")


def start(algorithm: str, out: Path, *options: str) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "bayes_share", "fit", algorithm, *OPTIONS, *options, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*torchrun, *words], stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def process_of(rank: int, out: Path) -> int:
    """Return the id of the process with a rank."""
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if str(out).encode() in words and f"RANK={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except (OSError, ProcessLookupError):
            continue
    raise AssertionError(f"there is no rank {rank} of {out}")


def wait_for_checkpoint(out: Path) -> None:
    """Wait for a checkpoint and the first metrics."""
    for _ in range(1200):
        if list((out / "checkpoints").glob("*")) and (out / "metrics.csv").exists():
            return
        time.sleep(0.1)
    raise AssertionError("there is no checkpoint after two minutes")


def logits(out: Path) -> np.ndarray:
    with np.load(RunFolder(out).predictions("test")) as file:
        return file["logits"]


def test_two_processes_give_the_results_of_one(tmp_path: Path) -> None:
    said = finish(start("map", tmp_path / "two", "--epochs", "2"))
    assert said.count("digits: 1,797 images") == 1
    ended_well(command("fit", "map", *OPTIONS, "--epochs", "2", "--out", tmp_path / "one"))
    np.testing.assert_allclose(logits(tmp_path / "two"), logits(tmp_path / "one"), rtol=1e-3, atol=1e-4)
    ended_well(command("evaluate", tmp_path / "two", tmp_path / "one"))


@pytest.mark.slow  # in one process, tests/inference/test_ranks.py has its values
def test_a_deep_ensemble_on_two_processes_equals_that_of_one(tmp_path: Path) -> None:
    options = ("--of", "ivon", "--networks", "3", "--epochs", "2", "--augment", "crop")
    finish(start("deep-ensemble", tmp_path / "two", *options))
    alone = command("fit", "deep-ensemble", *OPTIONS, *options, "--out", tmp_path / "one")
    ended_well(alone)
    np.testing.assert_allclose(logits(tmp_path / "two"), logits(tmp_path / "one"), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_with_a_killed_process_resumes_to_the_same_results(tmp_path: Path) -> None:
    finish(start("ivon", tmp_path / "whole", *LONG))
    out = tmp_path / "stopped"
    killed = start("ivon", out, *LONG)
    wait_for_checkpoint(out)
    os.kill(process_of(1, out), signal.SIGKILL)
    started = time.monotonic()
    killed.communicate(timeout=120)
    assert killed.returncode != 0
    assert time.monotonic() - started < 60
    finish(start("ivon", out, *LONG, "--resume"))
    assert np.array_equal(logits(out), logits(tmp_path / "whole"))


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_results(tmp_path: Path) -> None:
    options = (*LONG, "--epochs", "40")
    finish(start("map", tmp_path / "whole", *options))
    out = tmp_path / "stopped"
    stopped = start("map", out, *options)
    wait_for_checkpoint(out)
    stopped.send_signal(signal.SIGTERM)  # to torchrun, which forwards it to all processes
    stopped.communicate(timeout=120)
    assert not RunFolder(out).summary.is_file()
    finish(start("map", out, *options, "--resume"))
    assert np.array_equal(logits(out), logits(tmp_path / "whole"))


def test_invalid_options_end_all_processes(tmp_path: Path) -> None:
    process = start("map", tmp_path / "run", "--batch-size", "51", "--epochs", "1")
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "a batch of 51 examples cannot be divided among 2 processes" in said


def test_an_error_of_the_first_process_is_the_only_one_shown(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other.txt").touch()
    process = start("map", tmp_path / "run", "--epochs", "1")
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert said.count("bayes-share: ") == 1
    assert "Connection" not in said
    assert "exitcode  : 2" in said
