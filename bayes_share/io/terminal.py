"""What is written to the terminal: one place, so that no name can change the screen or stop a command."""

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
_STDERR = 2  # the system's number of it


def printable(text: object, longest: int | None = None) -> str:
    r"""A text in one line that is safe to show: whatever is not printable is escaped.

    Names of files and runs come from elsewhere. They may hold line breaks, escape sequences, marks that reverse the
    direction of writing, or bytes that are no text in the system's encoding.

    Args:
        text: what to show; an object is shown as ``str`` gives it.
        longest: the number of characters above which the middle is left out; None: nothing is left out.

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
    """Names that a file or a folder holds, as part of a message: safe to show, and not too long."""
    return printable(", ".join(names), longest)


def printable_lines(text: str) -> str:
    """A text of several lines, each as `printable` gives it."""
    return "\n".join(map(printable, text.split("\n")))


def distinct(names: Iterable[str], longest: int) -> dict[str, str]:
    """Names that stand beside one another, as they are shown: printable, short, no spaces around, and no two alike.

    Args:
        names: what is to be shown.
        longest: the number of characters above which the middle of a name is left out.

    Returns:
        Each name as it is shown; where it would read as one before it, with a number.

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
    """Write one line to stderr: what a command is doing, and what stopped it. Where that cannot be, nothing happens."""
    try:
        _write(sys.stderr, printable(line, _LONGEST))
    except (OSError, ValueError, RunError):  # nobody listens, or the disk is full: no reason to stop
        return


def show(text: str) -> None:
    """Write a result to stdout, now; a text of several lines keeps its line breaks.

    Raises:
        RunError: it cannot be written, such as to a file on a full disk.
        BrokenPipeError: what read the output has enough.
    """
    _write(sys.stdout, printable_lines(text))


def fill_streams() -> None:
    """Send nowhere what goes to a stream that was closed before Python began.

    Python has None for it, which progress bars cannot write to. Its number is taken too: otherwise the next file that
    is opened would have it, and get what libraries in C say.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def show_no_more() -> None:
    """Send what is still to be flushed to stdout nowhere, once nobody reads it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def showing_log() -> Iterator[None]:
    """Say what the library logs, each line once."""
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
    """Keep off the terminal what libraries in C write to stderr past Python, such as libtiff about damaged bytes."""
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
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise RunError(f"the output cannot be written: {error.strerror or error}") from error
