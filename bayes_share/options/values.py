"""Values of options as their types say: one reader for the command line and for files."""

import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from bayes_share.errors import InputError, unknown
from bayes_share.io.terminal import printable
from bayes_share.options.records import option_places, owner

_DEEPEST = 8  # lists in lists
_LONGEST = 100_000  # characters of a value
_SHOWN = 60  # characters of a value in a message
_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    tuple: "a list in brackets, such as [1, 2]",
}
_UNIONS = (Union, UnionType)


_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # by the first character, as PyYAML has them
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
    """Plain values, lists and mappings: no anchors, of which a short text makes a huge value, and no name twice.

    What a plain word stands for is as in YAML 1.2. In 1.1, which PyYAML has, 1e-3 and no are text and false, and 010
    and 1:30 are 8 and 90.
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
    """Quotes what the loader would not take for text."""

    yaml_implicit_resolvers = _RESOLVERS


def load_yaml(text: str) -> Any:
    """What a YAML text stands for.

    Raises:
        Exception: of any type, where it is none.

    >>> load_yaml("rate: 1e-3")
    {'rate': 0.001}
    """
    return yaml.load(text, _Loader)


def dump_yaml(values: Mapping[str, Any]) -> str:
    r"""A text that `load_yaml` reads as these values.

    Raises:
        YAMLError: a value is neither plain nor a list of such.

    >>> dump_yaml({"rate": 0.5, "folder": "1e3"})
    "rate: 0.5\nfolder: '1e3'\n"
    """
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


def read_value(hint: Any, given: Any) -> Any:
    """A value as a type says, from a file or from the text of the command line.

    Args:
        hint: ``int``, ``float``, ``bool``, ``str``, a ``Literal``, a tuple of such, or a union of these and None.
        given: the value.

    Raises:
        InputError: it is of another type; says which would be right, in words that follow the name of the option.

    >>> read_value(tuple[float, ...] | None, "[0.5, 1]")
    (0.5, 1.0)
    >>> read_value(int, "many")
    Traceback (most recent call last):
    ...
    bayes_share.errors.InputError: must be a whole number, not 'many'
    """
    is_text = isinstance(given, str)
    refused = InputError(f"must be {_in_words(hint)}, not {_shown(given)}")
    if is_text and len(given) > _LONGEST:
        raise refused
    try:
        loaded = load_yaml(given) if is_text and given.strip() else given
    except Exception:  # of any type: it is text and nothing else
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
    """Options, each as its type says.

    Args:
        values: by name.
        hints: of all options that there are.
        origin: the file that they are from, for messages.

    Raises:
        InputError: an option that does not exist, with the nearest that does, or a value of another type.
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
    """The types of a record's options, without the functions that Python may hand in and a file may not."""
    return {name: _without_functions(get_type_hints(owner(kind, name))[name]) for name in option_places(kind)}


def is_list(hint: Any) -> bool:
    """Whether a type is a tuple, which is written as a list, or may be one."""
    return any(get_origin(choice) is tuple for choice in _choices(hint))


def type_name(hint: Any) -> str:
    """A type in the words of a help text."""
    return _in_words(hint).partition(", such as")[0]


def _matched(choice: Any, value: Any) -> Any:
    """A value as one type of a hint has it.

    Raises:
        TypeError: it is of another type, or a number that is none or does not fit into the 64 bits that torch has.
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
    return Union[choices] if len(choices) < len(_choices(hint)) else hint  # noqa: UP007 (of as many as there are)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in _UNIONS else (hint,)


def _word(choice: Any) -> str:
    is_of_texts = get_origin(choice) is tuple and get_args(choice)[0] is str
    return "a list in brackets, such as [a, b]" if is_of_texts else _WORDS[get_origin(choice) or choice]


def _in_words(hint: Any) -> str:
    words: list[str] = []
    for choice in _choices(hint):
        is_literal = get_origin(choice) is Literal
        words += map(repr, get_args(choice)) if is_literal else [_word(choice)]
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _shown(given: Any) -> str:
    """A value of any type, in a few words; what may be long or deep is not written out."""
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, str):
        return printable(repr(given[:_SHOWN]), _SHOWN)
    if isinstance(given, int) and abs(given) >= 2**63:
        return "a number of more than 64 bits"
    return str(given) if isinstance(given, int | float) else f"a {type(given).__name__}"
