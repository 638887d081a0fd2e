"""What a run is, noted in its files and compared wherever it is taken up."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from bayes_share.data import Data
from bayes_share.data.tables.load import TableData
from bayes_share.errors import InputError
from bayes_share.io.terminal import say
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_flat
from bayes_share.tasks import spec_of
from bayes_share.version import __version__

_MAY_CHANGE = {"data_dir", "device", "capture", "checkpoint_minutes", "teacher"}  # between a run and its resumption
_WHICH_EXAMPLES = (  # of the data, are in which part and how
    "target",
    "likelihood",
    "split_by",
    "split_seed",
    "hold_out",
    "train_on_validation",
    "train_images",
    "image_size",
)


@dataclass(frozen=True)
class Identity:
    """What a run depends on.

    Args:
        options: all of its config but those that may change without changing a number.
        data: the digest of its data.
        version: of bayes-share, that it was made with.
        teacher: the digest of the one that it learns from; empty where it has none.
    """

    options: Mapping[str, Any]
    data: str
    version: str = __version__
    teacher: str = ""

    @classmethod
    def of(cls, config: RunConfig, data: Data | TableData, teacher: str = "") -> "Identity":
        """The identity of a run that is made here and now."""
        return cls(lasting_options(config), data.digest, teacher=teacher)

    @classmethod
    def read(cls, plain: object, path: Path) -> "Identity | None":
        """The identity that a file of a run notes; None where the file is of a version that noted none.

        Args:
            plain: what `to_plain` gave.
            path: the file.

        Raises:
            InputError: something else.
        """
        if plain is None:
            return None
        kinds = {"options": dict, "data": str, "version": str, "teacher": str}
        if not isinstance(plain, dict) or {n: type(v) for n, v in {"teacher": "", **plain}.items()} != kinds:
            raise InputError(f"{path} does not say which run it belongs to: restore the file that the run wrote")
        return cls(**plain)

    @property
    def stamp(self) -> str:
        """A short text for files of the run that have no place for more: the same for the same run only."""
        known = json.dumps([self.options, self.data, *([self.teacher] if self.teacher else [])], sort_keys=True)
        return sha256(known.encode()).hexdigest()[:32]

    def to_plain(self) -> dict[str, Any]:
        """The same as plain values; of what is not there, nothing is noted."""
        return {name: value for name, value in asdict(self).items() if name != "teacher" or value}


def lasting_options(config: RunConfig) -> dict[str, Any]:
    """The options of a run that stay as they are as long as there is the run."""
    return {name: value for name, value in to_flat(config).items() if name not in _MAY_CHANGE}


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first option that differs, with both of its values; None where none does.

    Args:
        there: options that were noted; one that is missing is younger than the note.
        here: the options of now.
    """
    return next(((name, there[name], here[name]) for name in here if name in there and there[name] != here[name]), None)


def check_options(noted: Identity | None, config: RunConfig, path: Path) -> None:
    """See whether a file belongs to the run that a config describes.

    Args:
        noted: what the file says of which run it is; None where it says nothing.
        config: of the run.
        path: the file.

    Raises:
        InputError: it is of another run; names the option that differs.
    """
    if noted is not None and (found := difference(noted.options, lasting_options(config))) is not None:
        name, there, here = found
        raise InputError(
            f"{path} belongs to a run with {name} {there}, and config.yaml says {here}: restore the config.yaml, "
            "or the other files, of this run"
        )


def check_data(noted: Identity | None, data: Data | TableData, path: Path) -> None:
    """See whether data are still those that a run was trained on.

    Args:
        noted: what a file of the run says; None where it says nothing.
        data: as they are now.
        path: the run's folder.

    Raises:
        InputError: they are others.
    """
    if noted is not None and "" not in (noted.data, data.digest) and noted.data != data.digest:
        raise InputError(
            f"the data {data.name} are not the data that the run in {path} was trained on: restore them, or "
            "start a new run"
        )


def check_teacher(noted: Identity | None, here: Identity, path: Path) -> None:
    """See whether a run goes on with the teacher that it began with, wherever that lies now.

    Args:
        noted: what a file of the run says; None where it says nothing.
        here: of the run with the teacher of now.
        path: the run's folder.

    Raises:
        InputError: it is another one.
    """
    if noted is not None and noted.teacher != here.teacher:
        raise InputError(
            f"the run in {path} was started with another teacher: give the folder of that teacher with --teacher"
        )


def check_same_images(theirs: Data | TableData, ours: Data | TableData, config: RunConfig, path: Path) -> None:
    """See whether a teacher was trained, and chosen, on the same examples as its student is to be.

    Otherwise it may have been trained on those that the student is validated and tested on.

    Args:
        theirs: the data of the teacher.
        ours: of the student.
        config: of the teacher.
        path: the teacher's folder.

    Raises:
        InputError: they are others.
    """
    if spec_of(ours) == spec_of(theirs) and all(
        torch.equal(one.inputs.cpu(), other.inputs.cpu()) and torch.equal(one.targets.cpu(), other.targets.cpu())
        for one, other in ((getattr(theirs, part), getattr(ours, part)) for part in ("train", "validation", "test"))
    ):
        return
    if "" not in (ours.digest, theirs.digest) and ours.digest != theirs.digest:
        raise InputError(f"the teacher {path} was trained on {theirs.name}, and its student on other data, {ours.name}")
    options = to_flat(config)
    chosen = ", ".join(f"{name} {options[name]}" for name in _WHICH_EXAMPLES if options.get(name) is not None)
    raise InputError(
        f"the teacher {path} was trained on other examples of {theirs.name} ({chosen}), and the student must not "
        "be validated on them: use the same split for both"
    )


def say_version(noted: Identity | None, path: Path) -> None:
    """Tell where a run was begun by another version of bayes-share.

    Args:
        noted: what a file of the run says; None where it says nothing, as in older versions.
        path: the run's folder.
    """
    if noted is None:
        say(f"{path} was started by an older version that did not record its options and data, so they are not checked")
    elif noted.version != __version__:
        say(f"{path} was started by bayes-share {noted.version}; this is version {__version__}")
