"""A run whose work several processes share, started as ``torchrun`` starts them."""

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

_SAYS_WHY = "bayes-share: "


def run_in_processes(config: RunConfig, path: Path, processes: int = 1) -> RunFolder:
    """Make a run, or go on with it, in this process or in several new ones.

    Args:
        config: everything that the run depends on.
        path: its folder.
        processes: how many share its work; 1: this one makes it.

    Raises:
        InputError: as `run`, in this process.
        RunError: as `run`, or what stopped the new processes.
        InterruptedRun: on Ctrl-C or SIGTERM, when the run has its checkpoint.
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
            start_new_session=True,  # Ctrl-C comes to all processes of a terminal, and is passed on from here
        )
        try:
            _, said = started.communicate()
        except BaseException:
            started.terminate()
            started.communicate()
            raise
    if started.returncode:
        raise RunError(_why(said) or f"its processes ended with exit code {started.returncode}")
    return RunFolder(path)


def _why(said: str) -> str:
    """What the command said last of what went wrong."""
    lines = [line.partition(_SAYS_WHY)[2] for line in said.splitlines() if line.startswith(_SAYS_WHY)]
    return lines[-1] if lines else ""
