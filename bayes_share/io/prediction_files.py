"""Prediction files as given on the command line."""

from collections.abc import Sequence
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

_ENDING = ".npz"


def named_files(words: Sequence[str]) -> dict[str, Path]:
    """Return the prediction files among some words by name. ``FILE.npz`` is named after itself, or ``NAME=FILE.npz``.

    Args:
        words: words of the command line; folders and words that do not end in ``.npz`` are ignored.

    Raises:
        InputError: two files have the same name, or a name is empty.
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
    """Return whether a word names a prediction file rather than the folder of a run."""
    return word.endswith(_ENDING) and not Path(word).is_dir()
