"""Folders of predictions for several sets of images, and the file in each that says what the images are."""

import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.io.files import write_atomically
from bayes_share.io.reading import read_text, reading

_FILE = "sets.json"
_LARGEST = 2**63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class SetInfo:
    """Where the images of predictions are from.

    Args:
        source: as a user gives it; empty where they are made on the fly.
        images: how many there are.
        available: how many these were taken from.
        stamp: of the files that they were read from, another one where these change; empty where there are no files,
            or none was noted.

    Raises:
        ValueError: a value of another type, or a number of images that cannot be.
    """

    source: str
    images: int
    available: int
    stamp: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.source, str) and isinstance(self.stamp, str)):
            raise ValueError("source and stamp of a set must be text")
        if not (type(self.images) is type(self.available) is int and 1 <= self.images <= self.available < _LARGEST):
            raise ValueError(f"a set cannot have {self.images!r} of {self.available!r} images")

    def covers(self, source: str, limit: int) -> bool:
        """Whether they are so many images, or as many as there are, of a source."""
        return self.source == source and self.images == min(limit, self.available)

    def has_changed(self, stamp: str) -> bool:
        """Whether the files that the images came from have another stamp now, as far as both are known."""
        return "" not in (self.stamp, stamp) and self.stamp != stamp

    def is_of_same(self, other: "SetInfo | None") -> bool:
        """Whether two runs' predictions are for the same images."""
        return other is not None and other == replace(self, stamp=other.stamp) and not self.has_changed(other.stamp)

    def __str__(self) -> str:
        """How many images, and of how many.

        >>> str(SetInfo("svhn", 10000, 26032))
        '10,000 of 26,032 images'
        """
        of = "" if self.images == self.available else f" of {self.available:,}"
        return f"{self.images:,}{of} image{'s' * (self.available != 1)}"


def read_sets(folder: Path, names: re.Pattern[str] = _NAME) -> dict[str, SetInfo]:
    """What the sets are whose predictions are in a folder, by name, in the order in which they came.

    Args:
        folder: with a file ``NAME.npz`` for each; where there is no folder, there are no sets.
        names: that sets can have; none leads out of the folder.

    Raises:
        InputError: the file that says so is damaged.
    """
    path = folder / _FILE
    if not os.path.lexists(path):
        return {}
    try:
        text = read_text(path, "a list of sets")
        with reading(path, "a list of sets"):
            known = {_checked(name, names): SetInfo(**entry) for name, entry in json.loads(text).items()}
    except InputError as error:
        raise InputError(f"{path} is damaged: remove it, and predict the sets in its folder again") from error
    return {name: info for name, info in known.items() if (folder / f"{name}.npz").is_file()}


def _checked(name: str, names: re.Pattern[str]) -> str:
    if not names.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a set")
    return name


def note_set(folder: Path, name: str, info: SetInfo) -> None:
    """Note what the images of a set are, once its predictions are written.

    Args:
        folder: of the predictions, in which no other process is at work.
        name: of the set.
        info: what its images are.
    """
    known = {**read_sets(folder), name: info}
    text = json.dumps({name: asdict(info) for name, info in known.items()}, indent=2)
    write_atomically(folder / _FILE, f"{text}\n".encode())
