"""Turn every exception raised while reading a file into a one-line `InputError`."""

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayes_share.errors import InputError, is_gpu_out_of_memory
from bayes_share.io.terminal import printable

_REASON = 200  # characters
_TEXT = 2**26  # bytes


@contextmanager
def reading(path: str | Path, what: str, remedy: str = "") -> Iterator[None]:
    """Convert exceptions raised while reading a file that may be damaged or written by hand.

    On malformed bytes, libraries raise many types of exception: from tokenizers, zip and struct, or for recursion,
    memory and overflow. No list of them is complete, so all are caught. Warnings are suppressed: they either precede
    an error or do not concern the user.

    Args:
        path: the file.
        what: what the file should be, for example "an .npz file of images".
        remedy: what the user should do about it, appended to the message; starts with its own punctuation.

    Raises:
        InputError: replaces every other exception and names the file. An InputError raised inside is unchanged.
        torch.OutOfMemoryError: is not converted. Damaged bytes can request too much memory of the host, but what is
            moved to a GPU has been read before.

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
        if is_gpu_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.strerror:  # not one that a library raised for damaged bytes
            raise InputError(f"{printable(path)} cannot be read: {error.strerror}{remedy}") from error
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()), _REASON).rstrip(": ")
        raise InputError(f"{printable(path)} cannot be read as {what} ({reason}){remedy}") from error


def check_path(path: str | Path, what: str) -> None:
    """Check that a path is usable, whether or not it exists.

    A path is unusable if a name in it is too long or contains a null byte, or if links are circular.

    Args:
        path: a file or a folder.
        what: what the path should be, for messages.

    Raises:
        InputError: the path is unusable.
    """
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be {what}: {reason}") from error


def check_file(path: str | Path, what: str, remedy: str = "") -> None:
    """Check that a regular file exists before opening it. Opening a pipe would wait for its other end.

    Args:
        path: the file.
        what: what the file should be, for messages.
        remedy: see `reading`.

    Raises:
        InputError: the file does not exist, or is a folder, a pipe or a device.
    """
    with reading(path, what, remedy):
        mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise InputError(f"{printable(path)} is {found}, and should be {what}{remedy}")


def read_text(path: str | Path, what: str, remedy: str = "", largest: int = _TEXT) -> str:
    """Read a text file.

    Args:
        path: the file.
        what: what the file should be, for messages.
        remedy: see `reading`.
        largest: the maximum size in bytes.

    Raises:
        InputError: the file does not exist, is larger, or is not UTF-8.
    """
    check_file(path, what, remedy)
    with reading(path, what, remedy):
        size = Path(path).stat().st_size
        if size > largest:
            raise InputError(f"{printable(path)} has {size:,} bytes, which is too large for {what}{remedy}")
        return Path(path).read_text(encoding="utf-8")
