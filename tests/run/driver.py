"""The command line in child processes, which can be made to fail at a chosen moment, and the contents of runs."""

import csv
import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch

SMALL = ["--epochs", "3", "--batch-size", "90", "--dropout", "0.2", "--norm", "batch", "--no-progress"]
"""Three epochs of 14 steps."""

KINDS = {
    "single network": ["map", *SMALL],
    "ensemble of 4": ["map", "--ensemble-size", "4", "--norm-sharing", "member", *SMALL],
}


@dataclass(frozen=True)
class Fault:
    """A failure at a chosen call of a chosen function.

    Args:
        place: "step": a training step; "replace": the renaming of a finished file; "fsync": the flushing of a file to
            disk.
        number: number of the call, from 1, among the calls selected by `name`.
        name: part of the name of the renamed file, for "replace".
        after: whether the failure happens after the call rather than before it.
        what: "kill", "interrupt" or "terminate": a signal to the own process; "full": the disk is full in this and all
            later calls.
    """

    place: str
    number: int = 1
    name: str = ""
    after: bool = False
    what: str = "kill"


@dataclass(frozen=True)
class Setting:
    """Unusual settings of a child process.

    Args:
        fault: a failure; None: no failure.
        forget: part of the state that its checkpoints lack, a key of `FORGOTTEN`.
        saves_each_epoch: whether to save after each epoch, however short, so that faults meet the same files.
        slow: seconds to sleep before each step.
        largest: maximum size of a file in bytes.
    """

    fault: Fault | None = None
    forget: str | None = None
    saves_each_epoch: bool = True
    slow: float = 0.0
    largest: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The exit code of a process, and its output."""

    code: int | None
    out: str
    err: str


@dataclass(frozen=True)
class Child:
    """A process that runs the command line, and the folder of its output."""

    process: BaseProcess
    folder: Path

    def wait_for(self, text: str) -> None:
        """Wait until the process has written a text to stderr."""
        until = time.monotonic() + 120
        while text not in (self.folder / "err").read_text(encoding="utf-8"):
            assert time.monotonic() < until, f"the process did not write {text!r}"
            time.sleep(0.05)

    def outcome(self) -> Outcome:
        """Wait for the process to end, and return its outcome."""
        self.process.join(300)
        assert self.process.exitcode is not None, "the process did not end"
        out, err = [(self.folder / name).read_text(encoding="utf-8") for name in ("out", "err")]
        outcome = Outcome(self.process.exitcode, out, err)
        self.process.close()
        shutil.rmtree(self.folder)
        return outcome


def start(*arguments: str | Path, setting: Setting = Setting()) -> Child:
    """Start ``bayes-share ARGUMENTS`` in a child process."""
    folder = Path(tempfile.mkdtemp())
    for name in ("out", "err"):
        (folder / name).touch()
    process = context().Process(target=_child, args=(folder, list(map(str, arguments)), setting), daemon=True)
    process.start()
    return Child(process, folder)


def fit(kind: str, out: Path, *arguments: str | Path, setting: Setting = Setting()) -> Outcome:
    """Run ``bayes-share fit`` for one of `KINDS` in a child process, and wait for its end."""
    return start("fit", *KINDS[kind], "--out", out, *arguments, setting=setting).outcome()


def command(*arguments: str | Path, setting: Setting = Setting()) -> Outcome:
    """Run ``bayes-share ARGUMENTS`` in a child process, and wait for its end."""
    return start(*arguments, setting=setting).outcome()


def ended_well(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err


def one_line(outcome: Outcome, code: int) -> str:
    """Check the exit code, and return the one-line error.

    It may only follow the description of the digits, or the step after which a run resumed.
    """
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    *before, line = outcome.err.splitlines(keepends=True)
    resumed = [text for text in before if text.startswith("resumed after step ")]
    assert [text.partition(": ")[0] for text in before] in ([], ["digits", "10 classes"], resumed[:1]), outcome.err
    assert line.startswith("bayes-share: ")
    assert line.endswith("\n")
    return line


@cache
def context() -> Any:
    """Return a context whose processes are copies of one with all imports, in which no torch thread has run."""
    server = multiprocessing.get_context("forkserver")
    product = ["bayes_share.cli", "bayes_share.runs.run", "bayes_share.options.parser", "bayes_share.study.runner"]
    server.set_forkserver_preload([*product, "sklearn.datasets", "torch._dynamo"])  # which they import lazily
    return server


def _child(folder: Path, arguments: list[str], setting: Setting) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY), number)
    torch.set_num_threads(1)
    from bayes_share.cli import main
    from bayes_share.inference import Training
    from bayes_share.inference.loop import saving
    from bayes_share.inference.methods.map import MAPState

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background processes with it ignored
    if setting.saves_each_epoch:
        saving.SAVING_PAYS = 0
    if setting.slow:
        take = Training._take_step
        Training._take_step = lambda *args: (time.sleep(setting.slow), take(*args))[1]  # type: ignore[method-assign]
    if setting.forget:
        state_dict, forget = MAPState.state_dict, FORGOTTEN[setting.forget]
        MAPState.state_dict = lambda self: forget(state_dict(self))  # type: ignore[method-assign]
    if setting.largest is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (setting.largest, setting.largest))
    if setting.fault:
        owner, name = {"step": (Training, "_take_step"), "replace": (os, "replace"), "fsync": (os, "fsync")}[
            setting.fault.place
        ]
        setattr(owner, name, _failing(getattr(owner, name), setting.fault))
    sys.exit(main(arguments))


def _failing(function: Callable[..., Any], fault: Fault) -> Callable[..., Any]:
    calls = 0

    def wrapped(*args: Any, **options: Any) -> Any:
        nonlocal calls
        if fault.place == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode):
            return function(*args, **options)  # of a folder, after renaming: not a write
        calls += fault.place != "replace" or fault.name in Path(args[1]).name
        is_now = calls == fault.number or (calls > fault.number and fault.what == "full")
        is_now = is_now and (fault.place != "replace" or fault.name in Path(args[1]).name)
        if is_now and not fault.after:
            _fail(fault.what)
        result = function(*args, **options)
        if is_now and fault.after:
            _fail(fault.what)
        return result

    return wrapped


def _fail(what: str) -> None:
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    number = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}[what]
    signal.raise_signal(number)  # in this thread, so that it is handled immediately


FORGOTTEN: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "the optimizer's momentum": lambda state: {**state, "optimizer": {**state["optimizer"], "state": {}}},
    "the step of the schedule": lambda state: {**state, "step": 0},
    "the running means": lambda state: {
        **state,
        "model": {k: torch.zeros_like(v) if "running_mean" in k else v for k, v in state["model"].items()},
    },
}


def run_contents(run: Path) -> dict[str, Any]:
    """Return the contents of a finished run, except for times; compared by `states.differences`."""
    found = sorted(path for path in run.rglob("*") if path.is_file())
    latest = max((run / "checkpoints").glob("*.pt"), key=lambda path: (path.name[:14], path.stat().st_mtime_ns))
    with (run / "metrics.csv").open(newline="") as file:
        metrics = [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    predictions = {}
    for path in sorted((run / "predictions").glob("*.npz")):
        with np.load(path) as arrays:
            predictions[path.stem] = {name: _plain(arrays[name]) for name in arrays.files}
    return {
        "files": [str(path.relative_to(run)) for path in found if path.suffix != ".pt"],
        "checkpoint": torch.load(latest, weights_only=True),
        "metrics": metrics,
        "predictions": predictions,
        "config": (run / "config.yaml").read_text(),
        "parameters": json.loads((run / "summary.json").read_text())["parameters"],
    }


def _plain(array: np.ndarray) -> Any:
    return array.tolist() if array.dtype.kind == "U" else torch.from_numpy(array)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the content and the modification time of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
