"""One place that turns whatever the reader of a file can raise into one line."""

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

_REASON = 200  # characters
_TEXT = 2**26  # bytes


@contextmanager
def reading(path: str | Path, what: str, remedy: str = "") -> Iterator[None]:
    """Read a file that somebody may have damaged or written by hand.

    On bytes that are not what they seem, libraries raise whatever they meet first: errors of the tokenizer, of zip, of
    struct, of recursion, of memory, of overflow. No list of them is complete, so all are caught here. What they warn of
    is either such an error or nothing to the user, so no warning is shown.

    Args:
        path: the file.
        what: it should be, for example "an .npz file of images".
        remedy: what to do then, as the end of the sentence; starts with its own punctuation.

    Raises:
        InputError: in place of every other exception; names the file. An InputError of the reader passes as it is.

    >>> with reading("a.json", "JSON", "; remove it"):
    ...     raise RecursionError("too deep")
    Traceback (most recent call last):
    ...
    bayes_share.errors.InputError: a.json cannot be read as JSON (RecursionError: too deep); remove it
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # by the system; libraries raise it for damaged bytes too
            raise InputError(f"{printable(path)} cannot be read: {error.strerror}{remedy}") from error
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()), _REASON).rstrip(": ")
        raise InputError(f"{printable(path)} cannot be read as {what} ({reason}){remedy}") from error


def check_path(path: str | Path, what: str) -> None:
    """See whether there can be something of this name, whether or not it is there yet.

    A name may be too long or hold a byte 0, and links may go round in a circle.

    Args:
        path: a file or a folder.
        what: it should be.

    Raises:
        InputError: there cannot be.
    """
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be {what}: {reason}") from error


def check_file(path: str | Path, what: str, remedy: str = "") -> None:
    """See whether there is a regular file, before it is opened: to open a pipe would wait for its other end.

    Args:
        path: the file.
        what: it should be.
        remedy: as of `reading`.

    Raises:
        InputError: there is none, or a folder, a pipe or a device in its place.
    """
    with reading(path, what, remedy):
        mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"{printable(path)} is {found}, and should be {what}{remedy}")


def read_text(path: str | Path, what: str, remedy: str = "", largest: int = _TEXT) -> str:
    """All of a text file.

    Args:
        path: the file.
        what: it should be.
        remedy: as of `reading`.
        largest: bytes that it may have.

    Raises:
        InputError: no such file, one that is larger or no UTF-8.
    """
    check_file(path, what, remedy)
    with reading(path, what, remedy):
        size = Path(path).stat().st_size
        if size > largest:
            raise InputError(f"{printable(path)} has {size:,} bytes, which is too large for {what}{remedy}")
        return Path(path).read_text(encoding="utf-8")
