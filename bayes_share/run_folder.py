"""The folder of a run: where its files are, and whether a run can begin, go on or be read there."""

import csv
import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bayes_share.config import RunConfig, read_run_config
from bayes_share.errors import InputError
from bayes_share.evaluation.sets import SetInfo, read_sets
from bayes_share.inference.checkpoint import Checkpoints

_NOTED = {"parameters", "seconds", "costs", "device", "versions"}  # in every summary

_MAY_CHANGE = {"data_dir", "device", "checkpoint_minutes"}  # between a run and its resumption


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are."""

    path: Path

    @property
    def config(self) -> Path:
        """All options; starts the same run again."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """A line for each epoch."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """Parameters, seconds and versions; the last file to be written, so it says that the run is finished."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Checkpoints:
        """The latest states."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def factors(self) -> Path:
        """The rank-1 factors under each draw, ``[draw, member, channel]`` by name; only where there are factors."""
        return self.path / "factors.npz"

    def predictions(self, split: str) -> Path:
        """Logits and labels of a split, or of a set such as "ood/svhn" or "corruptions/contrast-3"."""
        return self.path / "predictions" / f"{split}.npz"

    def sets(self, kind: Literal["ood", "corruptions"]) -> dict[str, SetInfo]:
        """The sets of a kind that there are predictions for, with what their images are."""
        return read_sets(self.path / "predictions" / kind)

    def ood_sets(self) -> list[str]:
        """The out-of-distribution sets that there are predictions for."""
        return list(self.sets("ood"))

    def corruption_sets(self) -> dict[str, list[int]]:
        """The severities that there are predictions for, in ascending order, by the type of corruption."""
        found: dict[str, list[int]] = {}
        for name in self.sets("corruptions"):
            kind, _, severity = name.rpartition("-")
            found.setdefault(kind, []).append(int(severity))
        return {kind: sorted(severities) for kind, severities in found.items()}


def check_output(path: Path) -> None:
    """See whether a file may be written there, before it is computed what is to be in it.

    Raises:
        InputError: it is a folder or a file of a run, or its folder is none that can be written in.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file in it")
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{path} cannot be written: {parent} is no folder that may be written in")
    folder = RunFolder(path.parent)
    if path in (folder.config, folder.metrics, folder.summary, folder.factors) and folder.config.is_file():
        raise InputError(f"{path} belongs to the run in {folder.path}: give another name")


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """What a finished run cost: ``parameters``, ``seconds``, ``costs`` (a `Ledger`), ``device`` and ``versions``.

    Raises:
        InputError: a file that is missing or damaged.
    """
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(folder, folder.summary) from error
    if not isinstance(summary, dict) or not set(summary) >= _NOTED:
        raise _damaged(folder, folder.summary)
    return summary


def read_history(folder: RunFolder) -> list[dict[str, float]]:
    """The figures of each epoch of a finished run.

    Raises:
        InputError: a file that is missing or damaged.
    """
    try:
        with folder.metrics.open(encoding="utf-8", newline="") as file:
            history = [{key: float(value) for key, value in line.items()} for line in csv.DictReader(file)]
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, folder.metrics) from error
    if not history or "seconds" not in history[-1]:
        raise _damaged(folder, folder.metrics)
    return history


def _damaged(folder: RunFolder, file: Path) -> InputError:
    again = f"bayes-share fit --resume --out {shlex.quote(str(folder.path))}"
    return InputError(f"{file} is damaged or missing: remove {folder.summary}, and have it written again by {again}")


def finished_run(path: Path) -> RunFolder:
    """The folder of a finished run.

    Raises:
        InputError: there is no such folder, it is no run, or the run is not finished.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a run: there is no such folder")
    if (path / "study.yaml").is_file():
        raise InputError(f"{path} is a study, not a run: its runs are in {path / 'runs'}")
    if not folder.config.is_file():
        raise InputError(f"{path} is not a run: it has no config.yaml")
    if not folder.summary.is_file():
        raise InputError(f"the run in {path} is not finished: bayes-share fit --resume --out {shlex.quote(str(path))}")
    return folder


def check_folder(folder: RunFolder, config: RunConfig, resume: bool) -> None:
    """See whether a run can begin or go on in a folder, and remove what a process that was killed left half written.

    Raises:
        InputError: the folder is a file, exists and is not to be resumed, is no run, or is one with other options.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path} is a file; a run needs a folder")
    left = set(folder.path.rglob(".*.tmp"))  # by a process that was killed while it wrote
    if folder.path.exists() and not left.issuperset(folder.path.iterdir()):
        _check_same_run(folder, config, resume)
    for path in left:
        path.unlink(missing_ok=True)


def _check_same_run(folder: RunFolder, config: RunConfig, resume: bool) -> None:
    if not resume:
        raise InputError(f"{folder.path} exists: go on with it by --resume, or give another folder")
    if not folder.config.is_file():
        raise InputError(f"{folder.path} is not a run: it has no config.yaml")
    there, here = read_run_config(folder.config).to_flat(), config.to_flat()
    for name in here:
        if name not in _MAY_CHANGE and there.get(name) != here[name]:
            raise InputError(
                f"{folder.path} is a run with {name} {there.get(name)}, which cannot be resumed with {here[name]}"
            )
