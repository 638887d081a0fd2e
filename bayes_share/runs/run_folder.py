"""The folder of a run: the paths of its files, and checks before a run is started, resumed or read."""

import csv
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from bayes_share.data.parts import TABLE_ENDINGS
from bayes_share.errors import InputError, option
from bayes_share.evaluation.image_sets import SetInfo, read_sets
from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.inference.loop.history import ALWAYS, check_history
from bayes_share.io.arrays import read_stamp
from bayes_share.io.files import left_beside, real_path, remove_left_beside
from bayes_share.io.folder_lock import LOCK
from bayes_share.io.reading import check_path, read_text, reading
from bayes_share.io.terminal import printable
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.identity import Identity, check_options, difference, lasting_options
from bayes_share.runs.summary import parse_summary
from bayes_share.tasks import TableSpec

_FILE_NAMES = re.compile(
    r"(study|config)\.yaml|(form|summary|sets)\.json|metrics\.csv|.+\.npz|step-[0-9]+-[0-9a-f]+\.pt",
    re.DOTALL,
)
_CORRUPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}-[1-5]")


@dataclass(frozen=True)
class RunFolder:
    """The paths of the files of a run."""

    path: Path

    @property
    def config(self) -> Path:
        """All options of the run, from which it can be started again."""
        return self.path / "config.yaml"

    @property
    def spec(self) -> Path:
        """The encoding of a table's columns, fitted on the training rows; exists only for tables."""
        return self.path / "form.json"

    @property
    def metrics(self) -> Path:
        """The metrics of each epoch."""
        return self.path / "metrics.csv"

    @property
    def summary(self) -> Path:
        """Parameters, seconds, costs and versions. Written last, so it marks the run as finished."""
        return self.path / "summary.json"

    @property
    def checkpoints(self) -> Checkpoints:
        """The latest checkpoints."""
        return Checkpoints(self.path / "checkpoints")

    @property
    def factors(self) -> Path:
        """The rank-1 factors of each draw, ``[draw, member, channel]`` by name; exists only if there are factors."""
        return self.path / "factors.npz"

    def predictions(self, split: str) -> Path:
        """Return the path of the predictions for a split or another set.

        Args:
            split: "test" or "validation", or a set such as "ood/svhn" or "corruptions/contrast-3".
        """
        return self.path / "predictions" / f"{split}.npz"

    def sets(self, kind: Literal["ood", "corruptions"]) -> dict[str, SetInfo]:
        """Return the `SetInfo` of each predicted out-of-distribution or corrupted set, by name."""
        folder = self.path / "predictions" / kind
        return read_sets(folder) if kind == "ood" else read_sets(folder, _CORRUPTION)

    def ood_sets(self) -> list[str]:
        """Return the names of the predicted out-of-distribution sets."""
        return list(self.sets("ood"))

    def corruption_sets(self) -> dict[str, list[int]]:
        """Return the predicted severities of each corruption type, in ascending order."""
        found: dict[str, list[int]] = {}
        for name in self.sets("corruptions"):
            kind, _, severity = name.rpartition("-")
            found.setdefault(kind, []).append(int(severity))
        return {kind: sorted(severities) for kind, severities in found.items()}

    def owns(self, path: Path) -> bool:
        """Return whether this folder is a run and a path is, or would be, one of the run's files.

        Args:
            path: path below this folder, starting with the same text as the folder's path.
        """
        files = (self.config, self.spec, self.metrics, self.summary, self.factors, self.path / LOCK)
        folders = (self.checkpoints.folder, self.path / "predictions")
        is_run = files[-1].exists() or (self.config.exists() and any(f.exists() for f in (*files[1:], *folders)))
        return is_run and (path in files or any(path.is_relative_to(folder) for folder in folders))


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """Read the summary of a finished run: ``parameters``, ``seconds``, ``costs`` (a `Ledger`), ``device`` and others.

    Raises:
        InputError: if the file is missing or damaged.
    """
    with _remedy_for_damage(folder, folder.summary):
        text = read_text(folder.summary, "a summary")
        with reading(folder.summary, "a summary"):
            return parse_summary(text)


def read_history(folder: RunFolder) -> list[dict[str, float]]:
    """Read the metrics of each epoch of a finished run.

    Raises:
        InputError: if the file is missing or damaged.
    """
    noted = read_summary(folder).get("metrics")
    with _remedy_for_damage(folder, folder.metrics):
        text = read_text(folder.metrics, "a table of epochs")
        if noted not in (None, sha256(text.encode()).hexdigest()):
            raise InputError(f"{folder.metrics} was changed after the run wrote it")
        with reading(folder.metrics, "a table of epochs"):
            lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            history = [{key: float(value) for key, value in line.items()} for line in lines]
            if not history:
                raise ValueError("there is no epoch")
            check_history(history, (*ALWAYS, *(["validation_nll"] if has_validation(folder) else [])))
            return history


def has_validation(folder: RunFolder) -> bool:
    """Return whether a run held out validation examples, and so has validation scores and predictions."""
    return not read_run_config(folder.config).train_on_validation


def validation_predictions(folder: RunFolder) -> Path:
    """Return the file of a run's predictions for its validation examples.

    Raises:
        InputError: if the run was also trained on these examples.
    """
    if not has_validation(folder):
        raise InputError(
            f"the run was trained with {option('train_on_validation')}, so it has no validation predictions"
        )
    return folder.predictions("validation")


def read_table_spec(folder: RunFolder) -> TableSpec:
    """Read the encoding of the columns of a table, which a finished run fitted on its training rows.

    Raises:
        InputError: if the file is missing or damaged.
    """
    noted = read_summary(folder).get("form")
    with _remedy_for_damage(folder, folder.spec):
        text = read_text(folder.spec, "the form of a table")
        if noted != sha256(text.encode()).hexdigest():
            raise InputError(f"{folder.spec} was changed after the run wrote it")
        return TableSpec.from_json(text, str(folder.spec))


@contextmanager
def _remedy_for_damage(folder: RunFolder, file: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{file} is damaged or missing: {written_again(folder)}") from error


def check_last_step(folder: RunFolder, is_finished: bool) -> None:
    """Check that the latest intact checkpoint of a finished run is that of its last step.

    Args:
        folder: folder of the run.
        is_finished: whether the training in the latest intact checkpoint is finished.

    Raises:
        InputError: if it is not, since the last checkpoint is damaged or missing.
    """
    if not is_finished:
        raise InputError(
            f"the checkpoint of the last step of {printable(folder.path)} is damaged or missing: restore it, or "
            f"{written_again(folder)}, which trains from the latest valid checkpoint"
        )


def written_again(folder: RunFolder) -> str:
    """Return the advice on a damaged result file of a run, as part of a message."""
    return f"remove {folder.summary}, and finish the run again with {_resume_command(folder.path)}"


def _resume_command(path: Path) -> str:
    return f"bayes-share fit --resume --out {shlex.quote(str(path))}"


def finished_run(path: Path) -> RunFolder:
    """Return the folder of a finished run.

    Raises:
        InputError: if the folder does not exist or is not a run, the run is not finished, or its files do not belong to
            the run in its config.
    """
    check_path(path, "a run")
    folder = RunFolder(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a run: {_why_not_a_run(path)}")
    if (path / "study.yaml").is_file():
        raise InputError(f"{path} is a study, not a run: its runs are in {path / 'runs'}")
    if not folder.config.is_file():
        raise InputError(f"{path} is not a run: it has no config.yaml")
    if not folder.summary.is_file():
        raise InputError(f"the run in {path} is not finished: resume it with {_resume_command(path)}")
    noted = noted_identity(folder)
    check_options(noted, read_run_config(folder.config), folder.summary)
    if noted is not None:
        _check_stamps(folder, noted)
    return folder


def _why_not_a_run(path: Path) -> str:
    """Return what a path that is not a run folder is, with advice, as part of a message."""
    if path.suffix.lower() in TABLE_ENDINGS:
        of = shlex.quote(f"csv:{path}")
        return f"it is a table; train a run on it with bayes-share fit map --data {of} --target COLUMN --out RUN"
    if path.suffix.lower() in (".npy", ".pt", ".pth"):
        return "give a run folder, or predictions as an .npz file with the arrays logits and labels"
    return "it is a file, and a run is a folder" if path.exists() else "there is no such folder"


def _check_stamps(folder: RunFolder, noted: Identity) -> None:
    """Check that all array files have the stamp of the run, or none."""
    for file in (folder.factors, *sorted((folder.path / "predictions").rglob("*.npz"))):
        if read_stamp(file) not in ("", noted.stamp):
            raise InputError(f"{file} belongs to another run: restore the file of this run, or remove it")


def noted_identity(folder: RunFolder) -> Identity | None:
    """Return the identity recorded in the summary of a finished run, or None if its version recorded none.

    Raises:
        InputError: if the file is missing or damaged.
    """
    return Identity.read(read_summary(folder).get("run"), folder.summary)


def is_empty(path: Path) -> bool:
    """Return whether a folder does not exist or is empty, apart from leftovers of a killed process."""
    return not path.exists() or all(_is_leftover(file) for file in path.iterdir())


def check_folder(folder: RunFolder, config: RunConfig, resume: bool) -> None:
    """Check that a run can be started or resumed in a folder. Nothing is changed.

    Raises:
        InputError: if the path is invalid or a file or belongs to another run, if it exists and `resume` is false, or
            if it is not a run or a run with other options.
    """
    check_path(folder.path, "the folder of a run")
    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path} is a file, and should be a folder")
    check_path(folder.predictions("corruptions/" + "x" * 100), "a file of a run")
    place = real_path(folder.path)
    for parent in place.parents:
        if RunFolder(parent).owns(place):
            raise InputError(f"{folder.path} belongs to the run in {parent}: use another folder")
    if not is_empty(folder.path):
        _check_same_run(folder, config, resume)


def check_folder_of_runs(path: Path, resume: bool) -> None:
    """Check that several runs, such as those of a study, can be started or resumed in a folder. Nothing is changed.

    Raises:
        InputError: if the path is invalid, a file or a run, or if it exists and `resume` is false.
    """
    check_path(path, "a folder of runs")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, and should be a folder")
    if (path / "config.yaml").exists():
        raise InputError(f"{path} is the folder of a single run: use another folder")
    if not is_empty(path) and not resume:
        raise InputError(f"{path} exists: resume it with --resume, or use another folder")


def remove_leftovers(folder: RunFolder) -> None:
    """Remove unfinished files of a killed process, in a folder that no other process uses."""
    predictions = folder.path / "predictions"
    for part in (folder.path, folder.checkpoints.folder, predictions, predictions / "ood", predictions / "corruptions"):
        remove_left_beside(part, lambda name: _FILE_NAMES.fullmatch(name) is not None)


def _is_leftover(file: Path) -> bool:
    """Return whether a file is the lock of a run, or an unfinished file of a run."""
    return file.name == LOCK or _FILE_NAMES.fullmatch(left_beside(file) or "") is not None


def _check_same_run(folder: RunFolder, config: RunConfig, resume: bool) -> None:
    if not resume:
        raise InputError(f"{folder.path} exists: resume it with --resume, or use another folder")
    if not folder.config.is_file():
        raise InputError(f"{folder.path} is not a run: it has no config.yaml")
    found = difference(lasting_options(read_run_config(folder.config)), lasting_options(config))
    if found is not None:
        name, there, here = found
        raise InputError(f"the run in {folder.path} has {name} {there}, and cannot be resumed with {here}")
