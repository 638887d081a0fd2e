"""Folders of predictions for several sets of images, and the file in each that says what the images are."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.files import write_atomically

_FILE = "sets.json"


@dataclass(frozen=True)
class SetInfo:
    """Where the images of predictions are from.

    Args:
        source: as a user gives it; empty where they are made on the fly.
        images: how many there are.
        available: how many these were taken from.
    """

    source: str
    images: int
    available: int

    def covers(self, source: str, limit: int) -> bool:
        """Whether they are so many images, or as many as there are, of a source."""
        return self.source == source and self.images == min(limit, self.available)

    def __str__(self) -> str:
        """How many images, and of how many.

        >>> str(SetInfo("svhn", 10000, 26032))
        '10,000 of 26,032 images'
        """
        of = "" if self.images == self.available else f" of {self.available:,}"
        return f"{self.images:,}{of} image{'s' * (self.available != 1)}"


def read_sets(folder: Path) -> dict[str, SetInfo]:
    """What the sets are whose predictions are in a folder, by name, in the order in which they came.

    Args:
        folder: with a file ``NAME.npz`` for each; where there is no folder, there are no sets.

    Raises:
        InputError: the file that says so is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        known = {name: SetInfo(**entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: remove it, and have the predictions beside it made again") from error
    return {name: info for name, info in known.items() if (folder / f"{name}.npz").is_file()}


def note_set(folder: Path, name: str, info: SetInfo) -> None:
    """Note what the images of a set are, once its predictions are written.

    Args:
        folder: of the predictions.
        name: of the set.
        info: what its images are.
    """
    known = {**read_sets(folder), name: info}
    text = json.dumps({name: asdict(info) for name, info in known.items()}, indent=2)
    write_atomically(folder / _FILE, f"{text}\n".encode())
