"""The file sets.json in a folder of predictions, which describes the images of each set."""

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
    """The origin of the images of a set.

    Args:
        source: the source as given by the user; empty for generated images.
        images: the number of images.
        available: the number of images that they were sampled from.
        stamp: a stamp of the source files, which changes if the files change; empty if there are no files or none was
            recorded.

    Raises:
        ValueError: if a value has another type, or the numbers of images are inconsistent.
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
        """Return whether the set has `limit` images of a source, or all images if the source has fewer."""
        return self.source == source and self.images == min(limit, self.available)

    def has_changed(self, stamp: str) -> bool:
        """Return whether the source files have a different stamp now. False if either stamp is unknown."""
        return "" not in (self.stamp, stamp) and self.stamp != stamp

    def is_of_same(self, other: "SetInfo | None") -> bool:
        """Return whether the predictions of two runs are for the same images."""
        return other is not None and other == replace(self, stamp=other.stamp) and not self.has_changed(other.stamp)

    def __str__(self) -> str:
        """Format the number of images, and the number available if it is larger.

        >>> str(SetInfo("svhn", 10000, 26032))
        '10,000 of 26,032 images'
        """
        of = "" if self.images == self.available else f" of {self.available:,}"
        return f"{self.images:,}{of} image{'s' * (self.available != 1)}"


def read_sets(folder: Path, names: re.Pattern[str] = _NAME) -> dict[str, SetInfo]:
    """Return the sets whose predictions are in a folder, by name, in the order of sets.json.

    Args:
        folder: the folder, with a file ``NAME.npz`` for each set; it may be missing.
        names: a pattern of allowed names; it must not match paths that lead out of the folder.

    Raises:
        InputError: if sets.json is damaged.
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
    """Record a set in sets.json, after its predictions were written.

    Args:
        folder: the folder of the predictions; no other process may be writing to it.
        name: the name of the set.
        info: the origin of its images.
    """
    known = {**read_sets(folder), name: info}
    text = json.dumps({name: asdict(info) for name, info in known.items()}, indent=2)
    write_atomically(folder / _FILE, f"{text}\n".encode())
