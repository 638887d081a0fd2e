"""Flat records: nested dataclasses whose inner fields can be set and read as if they belonged to the outer one."""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, get_type_hints

NOT_AN_OPTION: Mapping[str, bool] = {"is_option": False}
"""Metadata of a dataclass field that holds an object which cannot be written to a file and so is not an option."""


class _FlatSignature:
    """The signature that `help` and notebooks show: every option by its flat name, with its default."""

    def __get__(self, instance: object, kind: type) -> Signature:
        if not is_dataclass(kind):
            raise AttributeError("__signature__")  # `help` also asks `Flat` itself, which has no fields
        defaults = {field.name: _default(field) for field in fields(kind)}
        shown = []
        for name, (first, *rest) in _leaves(kind).items():
            default = defaults[first] if defaults[first] is MISSING else _at(defaults[first], rest)
            default = Parameter.empty if default is MISSING else default
            shown.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default))
        return Signature(shown)


class Flat:
    """A frozen dataclass whose options are its own fields and the fields of nested dataclasses.

    Decorate subclasses with ``@dataclass(frozen=True, init=False)``. Every option is set and read by its own name. An
    option of a nested dataclass changes the nested value that was passed, or else its default.

    Raises:
        TypeError: an option is unknown (the message suggests the closest one), given twice, missing, or of the wrong
            dataclass, or two nested dataclasses have an option of the same name.

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
        own, places = [field.name for field in fields(kind)], _places(kind)
        if len(values) > len(own):
            raise TypeError(f"{kind.__name__} takes at most {len(own)} values, not {len(values)}")
        given = dict(zip(own, values, strict=False))
        of_values: dict[str, dict[str, Any]] = {}
        for name, value in options.items():
            if name not in places:
                near = get_close_matches(name, places, n=1)
                hint = f": did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{kind.__name__} has no option {name!r}{hint}")
            if name in given:
                raise TypeError(f"{kind.__name__} got {name} twice")
            chosen = given if name in own else of_values.setdefault(places[name][0], {})
            chosen[name] = value
        for field in fields(kind):
            value = given[field.name] if field.name in given else _default(field)
            if value is MISSING:
                raise TypeError(f"{kind.__name__} requires {field.name}")
            record = _record(kind, field.name)
            if record is not None and not isinstance(value, record):
                raise TypeError(f"{field.name} of {kind.__name__} must be a {record.__name__}, not {value!r:.60}")
            if field.name in of_values:
                value = replace(value, **of_values[field.name])
            object.__setattr__(self, field.name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Validate the options. Subclasses override this."""

    if not TYPE_CHECKING:  # a type checker would accept every attribute name

        def __getattr__(self, name: str) -> Any:
            place = _places(type(self)).get(name, ())
            if len(place) < 2:  # unknown: the record's own fields are found without `__getattr__`
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            return _at(self, place)


def option_places(kind: type) -> dict[str, tuple[str, ...]]:
    """Return the options of a dataclass and of its nested dataclasses, with the path of fields to each.

    Args:
        kind: a dataclass.
    """
    return {name: place for name, place in _leaves(kind).items() if _is_option(kind, place)}


def options_of(record: Any) -> dict[str, Any]:
    """Return the values of all options of a record by name."""
    return {name: _at(record, place) for name, place in option_places(type(record)).items()}


def owner(kind: type, option: str) -> type:
    """Return the dataclass that declares an option: `kind` itself or one nested in it."""
    return _type_at(kind, option_places(kind)[option][:-1])


@cache
def _places(kind: Any) -> dict[str, tuple[str, ...]]:
    """Return the path of fields to each field of a dataclass and of its nested dataclasses, by name."""
    places: dict[str, tuple[str, ...]] = {}
    for field in fields(kind):
        record = _record(kind, field.name)
        inner = {} if record is None else _places(record)
        for name, place in ((field.name, ()), *inner.items()):
            if name in places:
                both = f"{'.'.join(places[name])} and {'.'.join((field.name, *place))}"
                raise TypeError(f"{kind.__name__} has two options with the same name: {both}")
            places[name] = (field.name, *place)
    return places


def _leaves(kind: type) -> dict[str, tuple[str, ...]]:
    """Return the paths of the fields that are not dataclasses themselves."""
    return {name: place for name, place in _places(kind).items() if not is_dataclass(_type_at(kind, place))}


def _is_option(kind: Any, place: tuple[str, ...]) -> bool:
    """Return whether no field on the path is marked with `NOT_AN_OPTION`."""
    for name in place:
        field = next(field for field in fields(kind) if field.name == name)
        if not field.metadata.get("is_option", True):
            return False
        kind = _type_at(kind, (name,))
    return True


def _record(kind: type, name: str) -> Any:
    """Return the type of a field if it is a dataclass, else None."""
    hint = _hints(kind)[name]
    return hint if is_dataclass(hint) else None


def _type_at(kind: Any, place: tuple[str, ...]) -> Any:
    """Return the annotated type of the field at a path."""
    for name in place:
        kind = _hints(kind)[name]
    return kind


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _at(record: Any, place: Any) -> Any:
    for name in place:
        record = getattr(record, name)
    return record


def _default(field: Any) -> Any:
    """Return the default of a field, or MISSING if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()
