"""Write to the terminal. All output passes here, so that no name can alter the screen or stop a command."""

import errno
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from typing import Any

from bayes_share.errors import RunError

_LONGEST = 2000  # characters of a line on stderr
_STDERR = 2  # the file descriptor


def printable(text: object, longest: int | None = None) -> str:
    r"""Return a text in one line, with characters that are not printable escaped.

    Names of files and runs are not trusted. They may contain line breaks, escape sequences, marks that reverse the
    text direction, or bytes that are invalid in the system's encoding.

    Args:
        text: the text to show, or an object, which is converted with ``str``.
        longest: the maximum number of characters; the middle of a longer text is left out. None: no limit.

    >>> printable("runs/a\x1b[2J\nb")
    'runs/a\\x1b[2J\\nb'
    >>> printable("0123456789", longest=7)
    '012…789'
    """
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    if longest is None or len(escaped) <= longest:
        return escaped
    half = (longest - 1) // 2
    return f"{escaped[: longest - 1 - half]}…{escaped[len(escaped) - half :]}"


def listed(names: Iterable[str], longest: int = 200) -> str:
    """Join names with commas for a message, printable and shortened to at most `longest` characters."""
    return printable(", ".join(names), longest)


def printable_lines(text: str) -> str:
    """Apply `printable` to each line of a text."""
    return "\n".join(map(printable, text.split("\n")))


def distinct(names: Iterable[str], longest: int) -> dict[str, str]:
    """Return display names that are printable, short, stripped of surrounding spaces, and distinct.

    Args:
        names: the names to show.
        longest: the maximum number of characters; the middle of a longer name is left out.

    Returns:
        The display name of each name; a number is appended if an earlier name is displayed the same.

    >>> list(distinct(["a-long-name", "a-lone-name", "short"], longest=7).values())
    ['a-l…ame', 'a-l…ame (2)', 'short']
    """
    shown: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        text = printable(name, longest).strip()
        numbered = (f"{text} ({number})" for number in count(2))
        shown[name] = next(one for one in chain([text], numbered) if one not in taken)
        taken.add(shown[name])
    return shown


def say(line: object) -> None:
    """Write one line to stderr, for progress and errors. A failure to write is ignored."""
    try:
        _write(sys.stderr, printable(line, _LONGEST))
    except (OSError, ValueError, RunError):  # nobody listens, or the disk is full: no reason to stop
        return


def show(text: str) -> None:
    """Write a result to stdout and flush it. Line breaks in the text are kept.

    Raises:
        RunError: the text cannot be written, for example to a file on a full disk.
        BrokenPipeError: the reader of the output has closed it.
    """
    _write(sys.stdout, printable_lines(text))


def fill_streams() -> None:
    """Redirect standard streams that were closed before Python started to the null device.

    Python sets closed streams to None, which progress bars cannot write to. Their file descriptors are also occupied;
    otherwise the next opened file would get one and receive what C libraries print.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (open as long as the process runs)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def show_no_more() -> None:
    """Redirect stdout to the null device, so that flushing it cannot fail after its reader has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def showing_log() -> Iterator[None]:
    """Write the library's log messages to stderr, each distinct line once."""
    logger, handler, said = logging.getLogger("bayes_share"), logging.Handler(), set[str]()

    def emit(record: logging.LogRecord) -> None:
        if (line := record.getMessage()) not in said:
            said.add(line)
            say(line)

    handler.emit = emit  # type: ignore[method-assign]
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def muted() -> Iterator[None]:
    """Suppress what C libraries write directly to stderr, such as libtiff's warnings about damaged bytes."""
    try:
        kept = os.dup(_STDERR)
    except OSError:  # it is closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)


def _write(stream: Any, text: str) -> None:
    encoding = stream.encoding or "utf-8"
    try:
        # In one piece: other processes may write to the same stream.
        print(f"{text}\n".encode(encoding, "backslashreplace").decode(encoding), end="", file=stream, flush=True)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise RunError(f"the output cannot be written: {error.strerror or error}") from error
