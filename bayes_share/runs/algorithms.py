"""Command-line names of the algorithms, and the run defaults of each."""

from dataclasses import fields
from typing import Any

from bayes_share.errors import InputError, unknown
from bayes_share.inference import ALGORITHMS, Inference


def algorithm_type(name: str) -> type:
    """Return the class of the algorithm with a given command-line name.

    Raises:
        InputError: if the name is unknown; the message suggests the closest one.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def has_inner(kind: type) -> bool:
    """Return whether an algorithm wraps an inner algorithm."""
    return any(field.name == "of" for field in fields(kind))


def inner_name(name: str, given: str | None) -> str | None:
    """Return the name of an algorithm's inner algorithm, which defaults to "map", or None if it has none.

    Args:
        name: command-line name of the outer algorithm.
        given: command-line name of the inner algorithm, or None if not given.

    Raises:
        InputError: if a name is unknown, if the inner algorithm wraps another one itself, or if the outer algorithm
            does not support it.
    """
    if not has_inner(algorithm_type(name)):
        return None
    inner = "map" if given is None else given
    if has_inner(algorithm_type(inner)):
        raise InputError(
            f"{name} cannot use {inner} as its inner algorithm, since {inner} has an inner algorithm itself"
        )
    algorithm_type(name)(of=algorithm_type(inner)())
    return inner


def run_defaults(name: str, inner: str | None = None) -> dict[str, Any]:
    """Return the run options for which an algorithm changes the default, with their values.

    Args:
        name: command-line name of the algorithm.
        inner: command-line name of its inner algorithm, whose defaults apply unless the outer algorithm sets its own.
    """
    kinds = [algorithm_type(kind) for kind in (inner, name) if kind is not None]
    return {option: value for kind in kinds for option, value in getattr(kind, "run_defaults", {}).items()}


def algorithm_name(algorithm: Inference[Any]) -> str:
    """Return the command-line name of an algorithm.

    Raises:
        InputError: if the command line does not offer the algorithm.
    """
    for name, kind in ALGORITHMS.items():
        if kind is type(algorithm):
            return name
    raise InputError(
        f"the algorithm of a run must be one of {', '.join(ALGORITHMS)}, not {type(algorithm).__name__}: train "
        "other algorithms with fit() in Python"
    )
