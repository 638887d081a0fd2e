"""Files of predictions as they are named on the command line."""

from collections.abc import Sequence
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

_ENDING = ".npz"


def named_files(words: Sequence[str]) -> dict[str, Path]:
    """Files of predictions by name, out of what somebody gave: ``NAME=FILE.npz``, or ``FILE.npz`` for its own name.

    Args:
        words: all of them; what is a folder, or does not end in ``.npz``, is left out.

    Raises:
        InputError: one name for two files, or an empty one.
    """
    found: dict[str, Path] = {}
    for word in words:
        if not is_file_of_predictions(word):
            continue
        given, separator, path = ("", "", word) if Path(word).is_file() else word.rpartition("=")
        name = given if separator else Path(path).name.removesuffix(_ENDING)
        if not name:
            raise InputError(f"{printable(word)} has no name before the '=': give predictions as NAME=FILE.npz")
        if name in found:
            raise InputError(
                f"two files of predictions are called {printable(name)}: give them different names, NAME=FILE.npz"
            )
        found[name] = Path(path)
    return found


def is_file_of_predictions(word: str) -> bool:
    """Whether what somebody gave is a file of predictions, and not the folder of a run."""
    return word.endswith(_ENDING) and not Path(word).is_dir()
