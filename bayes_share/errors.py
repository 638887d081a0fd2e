"""Errors that the user can fix. Each has a one-line message."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

_AT_COMMAND_LINE = ContextVar("whether messages are for the command line", default=False)


class InputError(ValueError):
    """The user's input is invalid. The message names the input and says what would be valid."""


class RunError(RuntimeError):
    """A run had to stop, such as at a NaN loss or a full disk. Files written before remain valid."""


OUT_OF_MEMORY = "out of memory: use a smaller network, batch size or number of members"
"""The message of a run that ran out of memory."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out, on the host or a GPU.

    Torch raises a plain `RuntimeError` on the CPU, and oneDNN reports that it could not create or execute a primitive.
    On a GPU, cuBLAS reports that it is not initialised if its handle does not fit into memory, and cuDNN that it finds
    no engine if none of its workspaces fits.
    """
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or is_gpu_out_of_memory(error)
        or any(
            words in said
            for words in (
                "out of memory",
                "allocate memory",
                "not enough memory",
                "STATUS_ALLOC_FAILED",
                "CUBLAS_STATUS_NOT_INITIALIZED",
                "nable to find an engine to execute this computation",
                "could not create a primitive",
                "could not execute a primitive",
            )
        )
    )


def is_gpu_out_of_memory(error: Exception) -> bool:
    """Return whether an error is a `torch.OutOfMemoryError`, which torch raises if the memory of a GPU is full.

    The class is found by its name, because messages of the command line must not wait for the import of torch.
    """
    return any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)


@contextmanager
def named(what: str) -> Iterator[None]:
    """Prefix the message of an `InputError` raised inside the context.

    Args:
        what: the prefix, which names the input that is checked.

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
    """Make `option` spell options as on the command line inside the context, or as in Python if `is_so` is false."""
    before = _AT_COMMAND_LINE.set(is_so)
    try:
        yield
    finally:
        _AT_COMMAND_LINE.reset(before)


def option(name: str) -> str:
    """Return the name of an option as the reader of a message would write it.

    Args:
        name: the option's name in Python.

    >>> option("split_by")
    'split_by'
    >>> with for_command_line():
    ...     option("split_by")
    '--split-by'
    """
    return f"--{name.replace('_', '-')}" if _AT_COMMAND_LINE.get() else name


def unknown(kind: str, name: object, known: Iterable[str], place: str | None = None) -> InputError:
    """Return the error for an unknown name. The message suggests the closest known name.

    Args:
        kind: what the name refers to, for example ``"model"``.
        name: the unknown name, or an object of another type that was given as a name.
        known: the valid names.
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
    """Return the error for an attribute that a module does not have. The message suggests the closest one it has.

    Args:
        module: the name of the module.
        name: the missing attribute.
        known: the module's public names.

    >>> str(no_attribute("bayes_share", "ensembles", ["ensemble", "fold"]))
    "module 'bayes_share' has no attribute 'ensembles': did you mean 'ensemble'?"
    """
    near = get_close_matches(name, list(known), n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")
