"""The identity of a run: options, data and version, recorded in its files and checked when it is resumed or loaded."""

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

_MAY_CHANGE = {"data_dir", "device", "capture", "checkpoint_minutes", "teacher"}  # when a run is resumed
_INIT_OPTIONS = ("init", "init_sd", "init_probability")
_SPLIT_OPTIONS = (  # determine the examples in each part of the data
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
    """The options, data, version and teacher that determine the results of a run.

    Args:
        options: all options of the run except those that may change when it is resumed.
        data: digest of the data.
        version: version of bayes-share that wrote the record.
        teacher: digest of the teacher of a distilled run; otherwise empty.
    """

    options: Mapping[str, Any]
    data: str
    version: str = __version__
    teacher: str = ""

    @classmethod
    def of(cls, config: RunConfig, data: Data | TableData, teacher: str = "") -> "Identity":
        """Return the identity of a run of the current version."""
        return cls(lasting_options(config), data.digest, teacher=teacher)

    @classmethod
    def read(cls, plain: object, path: Path) -> "Identity | None":
        """Return the identity recorded in a file of a run, or None if the file's version recorded none.

        Args:
            plain: the recorded value, as returned by `to_plain`.
            path: the file, for error messages.

        Raises:
            InputError: if the value is not an identity.
        """
        if plain is None:
            return None
        kinds = {"options": dict, "data": str, "version": str, "teacher": str}
        if not isinstance(plain, dict) or {n: type(v) for n, v in {"teacher": "", **plain}.items()} != kinds:
            raise InputError(f"{path} does not say which run it belongs to: restore the file that the run wrote")
        return cls(**plain)

    @property
    def stamp(self) -> str:
        """Return a short hash of options, data and teacher, which marks the array files of the run."""
        known = json.dumps([self.options, self.data, *([self.teacher] if self.teacher else [])], sort_keys=True)
        return sha256(known.encode()).hexdigest()[:32]

    def to_plain(self) -> dict[str, Any]:
        """Return the identity as plain values. An empty teacher is left out."""
        return {name: value for name, value in asdict(self).items() if name != "teacher" or value}


def lasting_options(config: RunConfig) -> dict[str, Any]:
    """Return the options that must not change when a run is resumed. Those of factors are left out if it has none."""
    unused = () if config.init is not None else _INIT_OPTIONS
    return {name: value for name, value in to_flat(config).items() if name not in {*_MAY_CHANGE, *unused}}


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return the name of the first option that differs and both of its values, or None if no option differs.

    Args:
        there: recorded options. Options missing here are newer than the record, and are not compared.
        here: current options.
    """
    differs = (name for name in here if name in there and there[name] != here[name])
    return next(((name, _shown(there[name]), _shown(here[name])) for name in differs), None)


def _shown(value: object) -> str:
    return "null" if value is None else str(value)


def check_options(noted: Identity | None, config: RunConfig, path: Path) -> None:
    """Check that a file belongs to the run that a config describes.

    Args:
        noted: identity recorded in the file; None if none was recorded.
        config: configuration of the run.
        path: the file.

    Raises:
        InputError: if the file belongs to another run; the message names the option that differs.
    """
    if noted is not None and (found := difference(noted.options, lasting_options(config))) is not None:
        name, there, here = found
        raise InputError(
            f"{path} belongs to a run with {name} {there}, and config.yaml says {here}: restore the config.yaml, "
            "or the other files, of this run"
        )


def check_data(noted: Identity | None, data: Data | TableData, path: Path) -> None:
    """Check that the data are the data that a run was trained on.

    Args:
        noted: identity recorded in a file of the run; None if none was recorded.
        data: the current data.
        path: the run folder.

    Raises:
        InputError: if the digests of the data differ.
    """
    if noted is not None and "" not in (noted.data, data.digest) and noted.data != data.digest:
        raise InputError(
            f"the data {data.name} are not the data that the run in {path} was trained on: restore them, or "
            "start a new run"
        )


def check_teacher(noted: Identity | None, here: Identity, path: Path) -> None:
    """Check that a run is resumed with the teacher it was started with. The teacher's folder may have moved.

    Args:
        noted: identity recorded in a file of the run; None if none was recorded.
        here: identity of the run with the current teacher.
        path: the run folder.

    Raises:
        InputError: if the teacher is a different one.
    """
    if noted is not None and noted.teacher != here.teacher:
        raise InputError(
            f"the run in {path} was started with another teacher: give the folder of that teacher with --teacher"
        )


def check_same_images(theirs: Data | TableData, ours: Data | TableData, config: RunConfig, path: Path) -> None:
    """Check that a teacher was trained and selected on the same split of the same data as its student.

    Otherwise the teacher may have been trained on validation or test examples of the student.

    Args:
        theirs: data of the teacher.
        ours: data of the student.
        config: configuration of the teacher.
        path: run folder of the teacher.

    Raises:
        InputError: if the examples differ.
    """
    if spec_of(ours) == spec_of(theirs) and all(
        torch.equal(one.inputs.cpu(), other.inputs.cpu()) and torch.equal(one.targets.cpu(), other.targets.cpu())
        for one, other in ((getattr(theirs, part), getattr(ours, part)) for part in ("train", "validation", "test"))
    ):
        return
    if "" not in (ours.digest, theirs.digest) and ours.digest != theirs.digest:
        raise InputError(f"the teacher {path} was trained on {theirs.name}, and its student on other data, {ours.name}")
    options = to_flat(config)
    chosen = ", ".join(
        f"{name} {value}"
        for name in _SPLIT_OPTIONS
        if (value := options.get(name)) is not None and value is not False and value != []
    )
    raise InputError(
        f"the teacher {path} was trained on other examples of {theirs.name} ({chosen}), and the student must not "
        "be validated on them: use the same split for both"
    )


def say_version(noted: Identity | None, path: Path) -> None:
    """Tell the user if a run was started by another version of bayes-share.

    Args:
        noted: identity recorded in a file of the run; None if none was recorded, as in older versions.
        path: the run folder.
    """
    if noted is None:
        say(f"{path} was started by an older version that did not record its options and data, so they are not checked")
    elif noted.version != __version__:
        say(f"{path} was started by bayes-share {noted.version}; this is version {__version__}")
