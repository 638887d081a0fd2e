"""What can go wrong in a way that its user can mend, each in one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What the user handed in cannot be used; the message names it and says what would be right."""


class RunError(RuntimeError):
    """A run had to stop (a loss that is no number, a full disk); what was written before stays good."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not known, with the nearest one that is.

    Args:
        kind: what the name was to be, for example ``"model"``.
        name: the name that was given.
        known: the names that exist.

    >>> str(unknown("model", "resnet2", ["resnet20", "lenet"]))
    "unknown model 'resnet2': did you mean 'resnet20'? Known: lenet, resnet20"
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InputError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(names)}")
