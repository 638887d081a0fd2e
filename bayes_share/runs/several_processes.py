"""A run whose work is shared by several processes, started with ``torchrun``."""

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bayes_share.errors import RunError
from bayes_share.io.terminal import say
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_yaml
from bayes_share.runs.interrupt import terminable
from bayes_share.runs.run import run
from bayes_share.runs.run_folder import RunFolder

ENDED_WITH = "ended with exit code"
"""Words of the message on a process that ended without an error message."""

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
    was_finished = RunFolder(path).summary.is_file()
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
        message = _error_message(said)
        if message is None and RunFolder(path).summary.is_file() and not was_finished:
            return RunFolder(path)  # a process crashed as it exited, after all results were written
        if message is None:
            for line in said.splitlines():  # a bug or a crash rather than invalid input: keep the traceback
                say(line)
            message = f"one of its processes {ENDED_WITH} {_first_exit_code(said) or started.returncode}"
        raise RunError(message)
    return RunFolder(path)


def _error_message(said: str) -> str | None:
    """Return the first error message in the output of the command; None if the process that failed wrote none.

    ``torchrun`` stops the other processes with SIGTERM, so they only say that they stopped.
    """
    lines = [line.removeprefix(_MESSAGE_PREFIX) for line in said.splitlines() if line.startswith(_MESSAGE_PREFIX)]
    return next((line for line in lines if not line.startswith("stopped")), None)


def _first_exit_code(said: str) -> str | None:
    """Return the exit code of the process that failed first, which ``torchrun`` lists last."""
    found = re.findall(r"^ *exitcode *: *(-?\d+)", said, flags=re.MULTILINE)
    return found[-1] if found else None
