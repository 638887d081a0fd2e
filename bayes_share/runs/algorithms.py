"""Algorithms by their names on the command line, and the options that come with them."""

from dataclasses import fields
from typing import Any

from bayes_share.errors import InputError, unknown
from bayes_share.inference import ALGORITHMS, Inference


def algorithm_type(name: str) -> type:
    """The algorithm of a name on the command line.

    Raises:
        InputError: there is none of this name; names the nearest.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def has_inner(kind: type) -> bool:
    """Whether an algorithm runs another one."""
    return any(field.name == "of" for field in fields(kind))


def inner_name(name: str, given: str | None) -> str | None:
    """The algorithm that another one runs: the one that is given, or MAP; None where it runs none.

    Raises:
        InputError: there is no such algorithm, it runs one itself, or it is none that the other can run.
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
    """The options of a run whose defaults are other ones for an algorithm.

    Args:
        name: of the algorithm on the command line.
        inner: of the one that it runs, whose defaults hold where it has none.
    """
    kinds = [algorithm_type(kind) for kind in (inner, name) if kind is not None]
    return {option: value for kind in kinds for option, value in getattr(kind, "run_defaults", {}).items()}


def algorithm_name(algorithm: Inference[Any]) -> str:
    """The name of an algorithm on the command line.

    Raises:
        InputError: one that the command line does not have.
    """
    for name, kind in ALGORITHMS.items():
        if kind is type(algorithm):
            return name
    raise InputError(
        f"the algorithm of a run must be one of {', '.join(ALGORITHMS)}, not {type(algorithm).__name__}: train "
        "other algorithms with fit() in Python"
    )
