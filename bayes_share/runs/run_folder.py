"""The folder of a run: where its files are, and whether a run can begin, go on or be read there."""

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

_WRITTEN = re.compile(
    r"(study|config)\.yaml|(form|summary|sets)\.json|metrics\.csv|.+\.npz|step-[0-9]+-[0-9a-f]+\.pt",
    re.DOTALL,
)
_CORRUPTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}-[1-5]")


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run are."""

    path: Path

    @property
    def config(self) -> Path:
        """All options; starts the same run again."""
        return self.path / "config.yaml"

    @property
    def spec(self) -> Path:
        """What was fitted on the training rows of a table; only where the data are one."""
        return self.path / "form.json"

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
        folder = self.path / "predictions" / kind
        return read_sets(folder) if kind == "ood" else read_sets(folder, _CORRUPTION)

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

    def owns(self, path: Path) -> bool:
        """Whether a run is here and something of this path is, or would be, a part of it.

        Args:
            path: below this folder, as it is written here.
        """
        files = (self.config, self.spec, self.metrics, self.summary, self.factors, self.path / LOCK)
        folders = (self.checkpoints.folder, self.path / "predictions")
        is_run = files[-1].exists() or (self.config.exists() and any(f.exists() for f in (*files[1:], *folders)))
        return is_run and (path in files or any(path.is_relative_to(folder) for folder in folders))


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """What a finished run cost: ``parameters``, ``seconds``, ``costs`` (a `Ledger`), ``device`` and ``versions``.

    Raises:
        InputError: a file that is missing or damaged.
    """
    with _whole(folder, folder.summary):
        text = read_text(folder.summary, "a summary")
        with reading(folder.summary, "a summary"):
            return parse_summary(text)


def read_history(folder: RunFolder) -> list[dict[str, float]]:
    """The figures of each epoch of a finished run.

    Raises:
        InputError: a file that is missing or damaged.
    """
    noted = read_summary(folder).get("metrics")
    with _whole(folder, folder.metrics):
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
    """Whether a run held out validation examples, so that it has validation scores and predictions."""
    return not read_run_config(folder.config).train_on_validation


def validation_predictions(folder: RunFolder) -> Path:
    """Return the file of a run's predictions on its validation examples.

    Raises:
        InputError: The run was trained on these examples too.
    """
    if not has_validation(folder):
        raise InputError(
            f"the run was trained with {option('train_on_validation')}, so it has no validation predictions"
        )
    return folder.predictions("validation")


def read_table_spec(folder: RunFolder) -> TableSpec:
    """What was fitted on the training rows of a finished run on a table.

    Raises:
        InputError: a file that is missing or damaged.
    """
    noted = read_summary(folder).get("form")
    with _whole(folder, folder.spec):
        text = read_text(folder.spec, "the form of a table")
        if noted != sha256(text.encode()).hexdigest():
            raise InputError(f"{folder.spec} was changed after the run wrote it")
        return TableSpec.from_json(text, str(folder.spec))


@contextmanager
def _whole(folder: RunFolder, file: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{file} is damaged or missing: {written_again(folder)}") from error


def check_last_step(folder: RunFolder, is_finished: bool) -> None:
    """See whether the latest checkpoint of a finished run is of its last step: the one of that may be damaged or gone.

    Args:
        folder: of the run.
        is_finished: whether the training is over that the checkpoint holds.

    Raises:
        InputError: it is not.
    """
    if not is_finished:
        raise InputError(
            f"{printable(folder.path)} has no checkpoint of its last step: restore it, or train the run again"
        )


def written_again(folder: RunFolder) -> str:
    """What to do where a file is damaged that a run writes at its end, as part of a message."""
    return f"remove {folder.summary}, and write the results again with {_resuming(folder.path)}"


def _resuming(path: Path) -> str:
    return f"bayes-share fit --resume --out {shlex.quote(str(path))}"


def finished_run(path: Path) -> RunFolder:
    """The folder of a finished run.

    Raises:
        InputError: there is no such folder, it is no run, the run is not finished, or its config is of another run.
    """
    check_path(path, "a run")
    folder = RunFolder(path)
    if not path.is_dir():
        raise InputError(f"{path} is not a run: {_what_it_is(path)}")
    if (path / "study.yaml").is_file():
        raise InputError(f"{path} is a study, not a run: its runs are in {path / 'runs'}")
    if not folder.config.is_file():
        raise InputError(f"{path} is not a run: it has no config.yaml")
    if not folder.summary.is_file():
        raise InputError(f"the run in {path} is not finished: resume it with {_resuming(path)}")
    noted = noted_identity(folder)
    check_options(noted, read_run_config(folder.config), folder.summary)
    if noted is not None:
        _check_stamps(folder, noted)
    return folder


def _what_it_is(path: Path) -> str:
    """What is in the place of a run's folder, and what somebody may have wanted with it."""
    if path.suffix.lower() in TABLE_ENDINGS:
        of = shlex.quote(f"csv:{path}")
        return f"it is a table; train a run on it with bayes-share fit map --data {of} --target COLUMN --out RUN"
    if path.suffix.lower() in (".npy", ".pt", ".pth"):
        return "give a run folder, or predictions as an .npz file with the arrays logits and labels"
    return "it is a file, and a run is a folder" if path.exists() else "there is no such folder"


def _check_stamps(folder: RunFolder, noted: Identity) -> None:
    """See whether all arrays are of the run that its summary says; where one has no stamp, nothing is known."""
    for file in (folder.factors, *sorted((folder.path / "predictions").rglob("*.npz"))):
        if read_stamp(file) not in ("", noted.stamp):
            raise InputError(f"{file} belongs to another run: restore the file of this run, or remove it")


def noted_identity(folder: RunFolder) -> Identity | None:
    """What a finished run's summary says of which run it is; None where it is of a version that noted nothing.

    Raises:
        InputError: a file that is missing or damaged.
    """
    return Identity.read(read_summary(folder).get("run"), folder.summary)


def is_empty(path: Path) -> bool:
    """Whether there is nothing in a folder, or no folder, but for what a killed process may have left in it."""
    return not path.exists() or all(_is_left(file) for file in path.iterdir())


def check_folder(folder: RunFolder, config: RunConfig, resume: bool) -> None:
    """See whether a run can begin or go on in a folder; nothing is changed.

    Raises:
        InputError: the folder cannot be or is a file, exists and is not to be resumed, is no run, or is one with other
            options.
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
    """See whether several runs can begin or go on in a folder, as those of a study; nothing is changed.

    Raises:
        InputError: the folder cannot be, is a file or a run, or exists and is not to be resumed.
    """
    check_path(path, "a folder of runs")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, and should be a folder")
    if (path / "config.yaml").exists():
        raise InputError(f"{path} is the folder of a single run: use another folder")
    if not is_empty(path) and not resume:
        raise InputError(f"{path} exists: resume it with --resume, or use another folder")


def remove_leftovers(folder: RunFolder) -> None:
    """Remove what a process that was killed left half written, in a folder in which no other process is at work."""
    predictions = folder.path / "predictions"
    for part in (folder.path, folder.checkpoints.folder, predictions, predictions / "ood", predictions / "corruptions"):
        remove_left_beside(part, lambda name: _WRITTEN.fullmatch(name) is not None)


def _is_left(file: Path) -> bool:
    """Whether a file is a run's lock, or was to become one of a run's own files."""
    return file.name == LOCK or _WRITTEN.fullmatch(left_beside(file) or "") is not None


def _check_same_run(folder: RunFolder, config: RunConfig, resume: bool) -> None:
    if not resume:
        raise InputError(f"{folder.path} exists: resume it with --resume, or use another folder")
    if not folder.config.is_file():
        raise InputError(f"{folder.path} is not a run: it has no config.yaml")
    found = difference(lasting_options(read_run_config(folder.config)), lasting_options(config))
    if found is not None:
        name, there, here = found
        raise InputError(f"the run in {folder.path} has {name} {there}, and cannot be resumed with {here}")
