"""Restore dataclasses from plain JSON values. Every value is validated, since the file may come from anyone."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

Record = TypeVar("Record")

_WORDS = {str: "text", bool: "true or false", float: "a finite number", tuple: "a list of texts"}


def from_plain(kind: type[Record], values: Any) -> Record:
    """Restore a frozen dataclass whose fields are texts, booleans, finite numbers, tuples of texts or such dataclasses.

    Args:
        kind: the dataclass.
        values: a JSON object whose keys are the names of the fields.

    Raises:
        InputError: a field is missing, unknown or of the wrong type. The message names it.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Point:
    ...     name: str
    ...     x: float
    >>> from_plain(Point, {"name": "a", "x": 1})
    Point(name='a', x=1.0)
    >>> from_plain(Point, {"name": "a", "x": "1"})
    Traceback (most recent call last):
    ...
    bayes_share.errors.InputError: x must be a finite number
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    given = check_names(values, names)
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], given[name], name) for name in names})


def check_names(values: Any, names: list[str]) -> Mapping[str, Any]:
    """Return `values`, or raise an InputError if they are not a JSON object with exactly these keys."""
    if not isinstance(values, dict):
        raise InputError(f"it must have {', '.join(names)}, and is a {type(values).__name__}")
    if values.keys() != set(names):
        found = printable(", ".join(values), 100) or "nothing"
        raise InputError(f"it must have {', '.join(names)}, and has {found}")
    return values


def _value(hint: Any, value: Any, name: str) -> Any:
    if is_dataclass(hint):
        return from_plain(hint, value)  # type: ignore[arg-type]
    kind = get_origin(hint) or hint
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
        return float(value)
    if kind is tuple and isinstance(value, list) and all(type(one) is get_args(hint)[0] for one in value):
        return tuple(value)
    if kind in (str, bool) and type(value) is kind:
        return value
    raise InputError(f"{name} must be {_WORDS[kind]}")


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
