"""Parse option values according to their types, from the command line and from files."""

import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from bayes_share.errors import InputError, unknown
from bayes_share.io.terminal import printable
from bayes_share.options.records import option_places, owner

_DEEPEST = 8  # nested lists
_LONGEST = 100_000  # characters of a value
_SHOWN = 60  # characters of a value in a message
_WORDS: Mapping[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    tuple: "a list in brackets, such as [1, 2]",
}
_UNIONS = (Union, UnionType)


_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # by first character, as PyYAML expects
for _kind, _firsts, _pattern in (
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("bool", list("tTfF"), r"true|True|TRUE|false|False|FALSE"),
    ("int", list("-+0123456789"), r"[-+]?(0|[1-9][0-9]*)"),
    (
        "float",
        list("-+.0123456789"),
        r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)",
    ),
):
    for _first in _firsts:
        _RESOLVERS.setdefault(_first, []).append((f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z")))


class _Loader(yaml.SafeLoader):
    """Load plain values, lists and mappings. Reject anchors, which can expand to huge values, and duplicate keys.

    Unquoted scalars follow YAML 1.2. PyYAML follows YAML 1.1, where 1e-3 is text, ``no`` is false, 010 is 8 and 1:30
    is 90.
    """

    yaml_implicit_resolvers = _RESOLVERS
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases are not supported")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.YAMLError("values are nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.YAMLError("a name is given twice")
        return mapping


class _Dumper(yaml.SafeDumper):
    """Quote strings that the loader would not read back as text."""

    yaml_implicit_resolvers = _RESOLVERS


def load_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        Exception: the text is not valid YAML; PyYAML may raise any type.

    >>> load_yaml("rate: 1e-3")
    {'rate': 0.001}
    """
    return yaml.load(text, _Loader)


def dump_yaml(values: Mapping[str, Any]) -> str:
    r"""Return a YAML text that `load_yaml` reads back as the same values.

    Raises:
        YAMLError: a value is neither a plain value nor a list of them.

    >>> dump_yaml({"rate": 0.5, "folder": "1e3"})
    "rate: 0.5\nfolder: '1e3'\n"
    """
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


def read_value(hint: Any, given: Any) -> Any:
    """Convert a value from a file or the command line to a type.

    Args:
        hint: ``int``, ``float``, ``bool``, ``str``, a ``Literal``, a tuple of these, or a union of these and None.
        given: the value; text is parsed as YAML.

    Raises:
        InputError: the value has another type. The message says which type is expected, and is meant to follow the
            option's name.

    >>> read_value(tuple[float, ...] | None, "[0.5, 1]")
    (0.5, 1.0)
    >>> read_value(int, "many")
    Traceback (most recent call last):
    ...
    bayes_share.errors.InputError: must be an integer, not 'many'
    """
    is_text = isinstance(given, str)
    refused = InputError(f"must be {_in_words(hint)}, not {_shown(given)}")
    if is_text and len(given) > _LONGEST:
        raise refused
    try:
        loaded = load_yaml(given) if is_text and given.strip() else given
    except Exception:  # not YAML, so plain text
        loaded = given
    candidates = [given] if isinstance(loaded, str) else [loaded, given]
    for value in candidates:
        for choice in _choices(hint):
            try:
                return _matched(choice, value)
            except TypeError:
                continue
    raise refused


def read_values(values: Mapping[str, Any], hints: Mapping[str, Any], origin: str | None = None) -> dict[str, Any]:
    """Convert the values of options to their types.

    Args:
        values: the values by option name.
        hints: the types of all existing options by name.
        origin: the file that the values are from, for messages.

    Raises:
        InputError: an option does not exist (the message suggests the closest one), or a value has the wrong type.
    """
    read = {}
    for name, value in values.items():
        if name not in hints:
            raise unknown("option", name, hints, origin)
        try:
            read[name] = read_value(hints[name], value)
        except InputError as error:
            where = "" if origin is None else f"{origin}: "
            raise InputError(f"{where}--{name.replace('_', '-')} {error}") from error
    return read


def option_types(kind: type) -> dict[str, Any]:
    """Return the types of a dataclass's options, without callables, which can only be passed in Python."""
    return {name: _without_functions(get_type_hints(owner(kind, name))[name]) for name in option_places(kind)}


def is_list(hint: Any) -> bool:
    """Return whether a type is a tuple or a union with a tuple. Tuples are written as lists."""
    return any(get_origin(choice) is tuple for choice in _choices(hint))


def type_name(hint: Any) -> str:
    """Return the name of a type as shown in a help text."""
    return _in_words(hint).partition(", such as")[0]


def _matched(choice: Any, value: Any) -> Any:
    """Convert a value to one type of a union.

    Raises:
        TypeError: the value has another type, is NaN, or is an integer that does not fit into torch's 64 bits.
    """
    if get_origin(choice) is tuple and isinstance(value, list | tuple):
        return tuple(_matched(get_args(choice)[0], one) for one in value)
    if get_origin(choice) is Literal and isinstance(value, str) and value in get_args(choice):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (value != value or (isinstance(value, int) and abs(value) >= 2**63)):
        raise TypeError
    if choice is float and is_number:
        return float(value)
    if type(value) is not choice:
        raise TypeError
    return value


def _without_functions(hint: Any) -> Any:
    choices = tuple(choice for choice in _choices(hint) if get_origin(choice) is not Callable)
    return Union[choices] if len(choices) < len(_choices(hint)) else hint  # noqa: UP007 (a variable number of types)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in _UNIONS else (hint,)


def _word(choice: Any) -> str:
    is_text_list = get_origin(choice) is tuple and get_args(choice)[0] is str
    return "a list in brackets, such as [a, b]" if is_text_list else _WORDS[get_origin(choice) or choice]


def _in_words(hint: Any) -> str:
    words: list[str] = []
    for choice in _choices(hint):
        is_literal = get_origin(choice) is Literal
        words += map(repr, get_args(choice)) if is_literal else [_word(choice)]
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _shown(given: Any) -> str:
    """Describe a value of any type briefly. Long or nested values are not written out."""
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, str):
        return printable(repr(given[:_SHOWN]), _SHOWN)
    if isinstance(given, int) and abs(given) >= 2**63:
        return "a number of more than 64 bits"
    return str(given) if isinstance(given, int | float) else f"a {type(given).__name__}"
