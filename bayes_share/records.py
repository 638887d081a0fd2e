"""Records of values, written flat: what a value in a record is made of may be given, and read, as the record's own."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, get_type_hints

NOT_AN_OPTION: Mapping[str, bool] = {"is_option": False}
"""Metadata of a field that holds an object, and not a value that could be written into a file."""


class _FlatSignature:
    """What `help` and notebooks show: all options, those of values too, with their defaults."""

    def __get__(self, instance: object, kind: type) -> Signature:
        shown = {field.name: _default(field) for field in fields(kind) if not _is_nested(kind, field.name)}
        shown |= {name: value for name, value in options_of(kind()).items() if name not in shown}
        return Signature([Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in shown.items()])


class Flat:
    """A frozen dataclass whose options are its own fields and those of the records among its values.

    Made with ``@dataclass(frozen=True, init=False)``. All options are given, and read, by their own names; one that is
    given changes the value that is given, or the default one.

    Raises:
        TypeError: an option that there is not; names the nearest.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Rate:
    ...     start: float = 1.0
    ...     decay: float = 0.5
    >>> @dataclass(frozen=True, init=False)
    ... class Method(Flat):
    ...     rate: Rate = Rate(decay=0.1)
    ...     depth: int = 3
    >>> Method(start=2.0)
    Method(rate=Rate(start=2.0, decay=0.1), depth=3)
    >>> Method(start=2.0).decay
    0.1
    """

    __signature__ = _FlatSignature()

    def __init__(self, *values: Any, **options: Any) -> None:
        kind: Any = type(self)
        names = [field.name for field in fields(kind)]
        if len(values) > len(names):
            raise TypeError(f"{kind.__name__} takes at most {len(names)} values, not {len(values)}")
        given = dict(zip(names, values, strict=False))
        of_values: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            place = name if name in names else _place(kind, name)
            if place is None:
                near = get_close_matches(name, [*names, *option_places(kind)], n=1)
                hint = f": did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{kind.__name__} has no option {name!r}{hint}")
            if place != name:
                of_values.setdefault(place, {})[name] = value
            elif name in given:
                raise TypeError(f"{kind.__name__} is given {name} twice")
            else:
                given[name] = value
        for field in fields(kind):
            value = given[field.name] if field.name in given else _default(field)
            if field.name in of_values:
                value = replace(value, **of_values[field.name])
            object.__setattr__(self, field.name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        """See whether the options can be used."""

    if not TYPE_CHECKING:  # a type checker would take every name for an option

        def __getattr__(self, name: str) -> Any:
            if name not in (places := _option_places(type(self))):
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            return _at(self, places[name])


def option_places(kind: type) -> dict[str, tuple[str, ...]]:
    """The options of a record and of the records among its values: by name, the fields that lead to each.

    Args:
        kind: a dataclass.
    """
    return dict(_option_places(kind))


def options_of(record: Any) -> dict[str, Any]:
    """The values of all options of a record, by name."""
    return {name: _at(record, place) for name, place in option_places(type(record)).items()}


def owner(kind: type, option: str) -> type:
    """The record, a type itself or that of a value in it, that has an option as a field of its own."""
    for name in option_places(kind)[option][:-1]:
        kind = get_type_hints(kind)[name]
    return kind


@cache
def _option_places(kind: Any) -> dict[str, tuple[str, ...]]:
    places: dict[str, tuple[str, ...]] = {}
    for field in fields(kind):
        if not field.metadata.get("is_option", True):
            continue
        if _is_nested(kind, field.name):
            inner = option_places(get_type_hints(kind)[field.name])
            places |= {name: (field.name, *place) for name, place in inner.items()}
        else:
            places[field.name] = (field.name,)
    return places


def _at(record: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        record = getattr(record, name)
    return record


def _place(kind: type, option: str) -> str | None:
    """The field whose value has an option, or a field that is none; None where there is no such."""
    for field in fields(kind):
        if _is_nested(kind, field.name):
            inner = get_type_hints(kind)[field.name]
            if option in {own.name for own in fields(inner)} or _place(inner, option) is not None:
                return field.name
    return None


@cache
def _is_nested(kind: type, name: str) -> bool:
    return is_dataclass(get_type_hints(kind)[name])


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    raise TypeError(f"{field.name} must be given")
