"""Runs whose work is shared by several processes, as in a study with `--processes`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bayes_share.errors import InputError, RunError
from bayes_share.inference import MAP
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run import run
from bayes_share.runs.run_folder import RunFolder
from bayes_share.runs.several_processes import run_in_processes
from bayes_share.study.runner import run_all


def logits(folder: Path) -> np.ndarray:
    with np.load(RunFolder(folder).predictions("test")) as file:
        return file["logits"]


def test_two_processes_train_each_run(tmp_path: Path) -> None:
    configs = {
        "good": RunConfig(MAP(), model="mlp1_16", epochs=1, batch_size=50),
        "odd": RunConfig(MAP(), model="mlp1_16", epochs=1, batch_size=51),
    }
    failed = run_all(configs, tmp_path, jobs=1, progress=False, processes=2)
    assert failed == {"odd": "a batch of 51 examples cannot be divided among 2 processes: use a divisible batch size"}
    run(configs["good"], tmp_path / "alone", progress=False)
    np.testing.assert_allclose(logits(tmp_path / "good"), logits(tmp_path / "alone"), rtol=1e-4, atol=1e-5)


def test_the_process_that_failed_first_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second process is killed at its start; the first one handles SIGTERM as a run does.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if os.environ.get('RANK') == '1':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if os.environ.get('RANK') == '0':\n"
        "    def stop(*_):\n"
        "        print('bayes-share: stopped', file=sys.stderr, flush=True)\n"
        "        os._exit(130)\n"
        "    signal.signal(signal.SIGTERM, stop)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = RunConfig(MAP(), model="mlp1_16", epochs=1)
    with pytest.raises(RunError, match=r"^one of its processes ended with exit code -9$"):
        run_in_processes(config, tmp_path / "run", processes=2)


def test_zero_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the number of processes of a run must be at least 1, and is 0"):
        run_all({"a": RunConfig()}, tmp_path, processes=0)


@pytest.mark.slow
def test_a_study_that_is_stopped_leaves_a_checkpoint_and_no_process(tmp_path: Path) -> None:
    out = tmp_path / "study"
    options = [
        "--methods",
        "sgd",
        "--sizes",
        "1",
        "--seeds",
        "1",
        "--epochs",
        "2000",
        "--jobs",
        "1",
        "--processes",
        "2",
    ]
    command = [sys.executable, "-m", "bayes_share", "study", "optimizers", *options, "--no-progress", "--out", str(out)]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for _ in range(1200):
        if list(out.glob("runs/*/config.yaml")):
            break
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate(timeout=120)
    assert "resume with --resume" in said
    assert list(out.glob("runs/*/checkpoints/*.pt"))
    remaining = subprocess.run(["pgrep", "-f", str(out)], capture_output=True, text=True).stdout
    assert remaining == ""


@pytest.mark.slow
def test_a_crash_at_the_exit_of_a_process_does_not_lose_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, signal\n"
        "if os.environ.get('RANK') == '1':\n"
        "    atexit.register(os.kill, os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = RunConfig(MAP(), model="mlp1_16", epochs=1)
    assert run_in_processes(config, tmp_path / "run", processes=2).summary.is_file()
    with pytest.raises(RunError, match="has epochs 1, and cannot be resumed with 2"):
        run_in_processes(RunConfig(MAP(), model="mlp1_16", epochs=2), tmp_path / "run", processes=2)
