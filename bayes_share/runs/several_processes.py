"""A run whose work is shared by several processes, started with ``torchrun``."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bayes_share.errors import RunError
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_yaml
from bayes_share.runs.interrupt import terminable
from bayes_share.runs.run import run
from bayes_share.runs.run_folder import RunFolder

_MESSAGE_PREFIX = "bayes-share: "


def run_in_processes(config: RunConfig, path: Path, processes: int = 1) -> RunFolder:
    """Start or resume a run in this process, or in several new ones.

    Args:
        config: configuration of the run.
        path: the run folder.
        processes: number of processes that share the work; 1: this process only.

    Raises:
        InputError: as in `run`, with one process.
        RunError: as in `run`, or if the new processes failed.
        InterruptedRun: on Ctrl-C or SIGTERM, after the checkpoint is saved.
    """
    if processes == 1:
        return run(config, path, resume=True, progress=False)
    with TemporaryDirectory() as place, terminable():
        options = Path(place) / "config.yaml"
        options.write_text(to_yaml(config), encoding="utf-8")
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "bayes_share"]
        fit = ["fit", "--config", str(options), "--resume", "--out", str(path), "--no-progress"]
        started = subprocess.Popen(
            [sys.executable, "-m", *torchrun, *fit],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes))},
            start_new_session=True,  # Ctrl-C would reach all processes of the terminal; this one forwards it
        )
        try:
            _, said = started.communicate()
        except BaseException:
            started.terminate()
            started.communicate()
            raise
    if started.returncode:
        raise RunError(_error_message(said) or f"its processes ended with exit code {started.returncode}")
    return RunFolder(path)


def _error_message(said: str) -> str:
    """Return the last error message in the output of the command; empty if there is none."""
    lines = [line.partition(_MESSAGE_PREFIX)[2] for line in said.splitlines() if line.startswith(_MESSAGE_PREFIX)]
    return lines[-1] if lines else ""
