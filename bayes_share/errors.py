"""What can go wrong in a way that its user can mend, each in one line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

_AT_COMMAND_LINE = ContextVar("whether messages are for the command line", default=False)


class InputError(ValueError):
    """What the user handed in cannot be used; the message names it and says what would be right."""


class RunError(RuntimeError):
    """A run had to stop (a loss that is no number, a full disk); what was written before stays good."""


@contextmanager
def named(what: str) -> Iterator[None]:
    """Begin the line of an `InputError` with what it is about.

    >>> with named("batch 3"):
    ...     raise InputError("no targets")
    Traceback (most recent call last):
    ...
    bayes_share.errors.InputError: batch 3: no targets
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


@contextmanager
def for_command_line(is_so: bool = True) -> Iterator[None]:
    """Have `option` spell options as the command line, or a config, does."""
    before = _AT_COMMAND_LINE.set(is_so)
    try:
        yield
    finally:
        _AT_COMMAND_LINE.reset(before)


def option(name: str) -> str:
    """An option in a message, as whoever reads it writes it.

    Args:
        name: in Python's spelling.

    >>> option("split_by")
    'split_by'
    >>> with for_command_line():
    ...     option("split_by")
    '--split-by'
    """
    return f"--{name.replace('_', '-')}" if _AT_COMMAND_LINE.get() else name


def unknown(kind: str, name: object, known: Iterable[str], place: str | None = None) -> InputError:
    """The error for a name that is not known, with the nearest one that is.

    Args:
        kind: what the name was to be, for example ``"model"``.
        name: what was given; a name, or something else in place of one.
        known: the names that exist.
        place: where the name was found, such as a file.

    >>> str(unknown("model", "resnet2", ["resnet20", "lenet"]))
    "unknown model 'resnet2': did you mean 'resnet20'? Choose from lenet, resnet20"
    >>> str(unknown("option", "zzz", ["epochs", "seed"], "config.yaml"))
    "unknown option 'zzz' in config.yaml: choose from epochs, seed"
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? Choose" if near else "choose"
    where = "" if place is None else f" in {place}"
    return InputError(f"unknown {kind} {name!r}{where}: {hint} from {', '.join(names)}")


def no_attribute(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a name that a module has not, with the nearest one that it has.

    Args:
        module: its name.
        name: what was asked for.
        known: its public names.

    >>> str(no_attribute("bayes_share", "ensembles", ["ensemble", "fold"]))
    "module 'bayes_share' has no attribute 'ensembles': did you mean 'ensemble'?"
    """
    near = get_close_matches(name, list(known), n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
