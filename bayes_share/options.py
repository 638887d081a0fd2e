"""Command-line options from records: names, types and defaults of their fields, help from their docstrings."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser

from bayes_share.config import option_fields
from bayes_share.errors import InputError

# The two forms in which jsonargparse says that a value has the wrong type.
_WRONG_VALUE = re.compile(
    r'Parser key "(?P<option>\w+)"(?: element \d+)?: (?:Expected an? |.*? Subtypes: \[)(?P<kind>.*?)'
    r"(?:\. Got value: |\] Errors: )(?P<value>.*)"
)

_PLAIN_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "NoneType": "null",
    "str": "text",
    "tuple": "a list in brackets, such as [1, 2]",
}


class OptionParser(ArgumentParser):
    """A parser whose complaints are one-line `InputError`s, with the nearest option that exists."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print."""
        line = " ".join(message.split())
        if unrecognised := re.search(r"nrecognized arguments: (\S+)", line):
            option = unrecognised[1].split("=")[0]
            known = [name for action in self._actions for name in action.option_strings]
            near = _nearest(option.strip("-"), [name.strip("-") for name in known])
            hint = f"did you mean --{near}? " if near else ""
            raise InputError(f"unknown option {option}: {hint}'{self.prog} --help' explains all")
        if wrong := _WRONG_VALUE.search(line):
            option = wrong["option"].replace("_", "-")
            value = wrong["value"].rpartition("Given value: ")[2]
            line = f"--{option} takes {_readable(wrong['kind'])}, not {value!r}"
        if line.endswith("required: runs"):
            line = "which runs? Their folders come first: some options take all words that follow"
        raise InputError(line)


def _nearest(option: str, known: list[str]) -> str | None:
    """The option that is meant: of these initials, beginning so, or spelt nearly so."""
    initials = [name for name in known if "".join(word[0] for word in name.split("-") if word) == option]
    begins = [name for name in known if option and name.startswith(option)]
    return next(iter([*initials, *begins, *get_close_matches(option, known, n=1)]), None)


def _readable(kind: str) -> str:
    """A type as jsonargparse names it, in plain words."""
    for name, words in _PLAIN_WORDS.items():
        kind = re.sub(rf"<class '{name}'>|\b{name}\b", words, kind)
    kind = re.sub(r"(?:typing\.)?Literal\[(.*?)\]", r"\1", kind)
    return re.sub(r", null$", " or null", kind)


def add_options(
    parser: ArgumentParser,
    title: str,
    kind: type,
    other_defaults: Mapping[str, Any] = MappingProxyType({}),
    only: Collection[str] | None = None,
) -> None:
    """Add an option for each field of a record.

    Args:
        parser: gets the options.
        title: of their group in the help.
        kind: a dataclass; its docstring, or that of the base a field comes from, explains every field under ``Args``.
        other_defaults: by the names of fields, in place of the record's own.
        only: the fields to add, where not all are.
    """
    group = parser.add_argument_group(title)
    helps = _helps(kind)
    types = {name: _without_functions(hint) for name, hint in get_type_hints(kind).items()}
    defaults = {field.name: field.default for field in dataclasses.fields(kind)} | dict(other_defaults)
    for name in option_fields(kind):
        if only is not None and name not in only:
            continue
        default = defaults[name]
        shown = list(default) if isinstance(default, tuple) else default  # a list as it is given, not Python's tuple
        settings: dict[str, Any] = {"help": helps[name], "default": shown}
        if types[name] is bool:
            settings["action"] = ActionYesNo(no_prefix="no-")
        else:
            is_list = get_origin(types[name]) is tuple
            settings |= {"type": types[name], "metavar": "LIST" if is_list else name.rpartition("_")[2].upper()}
        group.add_argument(f"--{name.replace('_', '-')}", **settings)


def _without_functions(hint: Any) -> Any:
    """A type without the functions that Python may hand in, and a command line may not."""
    choices = [choice for choice in get_args(hint) if get_origin(choice) is not Callable]
    return Union[tuple(choices)] if len(choices) < len(get_args(hint)) else hint  # noqa: UP007 (of as many as there are)


def _helps(kind: type) -> dict[str, str]:
    """What the docstrings of a record and of its bases say of each field, with the command line's name of None."""
    docstrings = (docstring_parser.parse(inspect.cleandoc(vars(base).get("__doc__") or "")) for base in kind.__mro__)
    params = [param for docstring in [*docstrings][::-1] for param in docstring.params]
    return {param.arg_name: re.sub(r"\bNone\b", "null", param.description or "") for param in params}


def first_line(kind: type) -> str:
    """What a class is, in the first line of its docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]
