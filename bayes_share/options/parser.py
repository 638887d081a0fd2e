"""Generate command-line options from dataclasses: types and defaults from the fields, help from the docstrings."""

import argparse
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NoReturn

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter, set_loader

from bayes_share.errors import InputError, unknown
from bayes_share.io.terminal import show
from bayes_share.options.records import option_places, options_of, owner
from bayes_share.options.values import is_list, option_types, read_value, type_name

_NEGATIVE = re.compile(r"-((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|\.?inf|nan)$")

set_loader("text", lambda text: text)  # by default, jsonargparse parses every text as YAML, anchors included


class OptionParser(ArgumentParser):
    """A parser that reports errors as one-line `InputError`s and suggests the closest existing option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, parser_mode="text", **settings)
        self._negative_number_matcher = _NEGATIVE  # argparse's own pattern takes -1e3 for an option

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` with the message that argparse would print."""
        name = ex.argument_name if isinstance(ex, argparse.ArgumentError) else None
        names_option = name is not None and name.startswith("-")
        if not names_option and (option := self._unknown_option()) is not None:
            near = _nearest(option.lstrip("-"), [known.lstrip("-") for known in self._known()])
            hint = f"did you mean --{near}? " if near else ""
            raise InputError(f"unknown option {option}: {hint}'{self.prog} --help' lists all options") from ex
        if isinstance(ex, argparse.ArgumentError) and name is not None:
            is_type_error = isinstance(ex.__context__, argparse.ArgumentTypeError)
            raise InputError(f"{name}{' ' if is_type_error else ': '}{ex.message}") from ex
        raise InputError(" ".join(message.split())) from ex

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write the help or the version. argparse would silently ignore a failed write."""
        show(message.rstrip("\n"))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Reject an empty value, which as a path means the current folder, and ``--``, which argparse would drop."""
        if action.option_strings and arg_strings in (["--"], [""]):
            raise argparse.ArgumentError(action, f"expected a value, not {arg_strings[0]!r}")
        return super()._get_values(action, arg_strings)

    def _parse_optional(self, arg_string: str) -> Any:
        """Use argparse's rule. jsonargparse would take ``--option.x`` for a nested key of the option."""
        return argparse.ArgumentParser._parse_optional(self, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggest the closest choice. argparse would only list the choices."""
        if action.choices is not None and value not in action.choices:
            raise unknown(action.dest, value, action.choices)

    def _known(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def _unknown_option(self) -> str | None:
        """Return the first word of the last parsed command line that looks like an option but is unknown."""
        given = [word.partition("=")[0] for word in self.args if word.startswith("-") and not _NEGATIVE.match(word)]
        return next((option for option in given if option not in self._known()), None)


class _Formatter(DefaultHelpFormatter):
    """Keep the line breaks of descriptions, and end the help of an option with its type and default."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line if line.startswith(" ") else textwrap.fill(line, width, initial_indent=indent)
            for line in text.split("\n")
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        notes = []
        if action.type not in (None, str) and not isinstance(action, ActionYesNo):
            notes.append(getattr(action.type, "__name__", str(action.type)))
        if action.option_strings and action.default is not argparse.SUPPRESS:
            words = action.default if isinstance(action.default, list) and action.nargs else None
            notes.append("default: %(default)s" if words is None else f"default: {' '.join(map(str, words)) or 'none'}")
        return f"{action.help or ''} ({', '.join(notes)})" if notes else action.help or ""


def add_option(container: Any, name: str, hint: Any, default: Any, text: str, **settings: Any) -> None:
    """Add one option to a parser.

    Args:
        container: a parser or one of its argument groups.
        name: the option's name in Python.
        hint: the type, one that `read_value` accepts.
        default: the default value; a tuple is shown as the list that a user writes.
        text: the help text.
        settings: further keyword arguments of ``add_argument``.
    """
    shown = list(default) if isinstance(default, tuple) else default
    option = f"--{name.replace('_', '-')}"
    if hint is bool:
        container.add_argument(option, action=ActionYesNo(no_prefix="no-"), default=shown, help=text, **settings)
        return
    metavar = "LIST" if is_list(hint) else name.rpartition("_")[2].upper()
    container.add_argument(
        option, **{"type": reader(hint), "metavar": metavar, "default": shown, "help": text, **settings}
    )


def add_options(
    parser: ArgumentParser,
    title: str,
    kind: type,
    other_defaults: Mapping[str, Any] = MappingProxyType({}),
    only: Collection[str] | None = None,
) -> None:
    """Add all options of a dataclass to a parser, including those of nested dataclasses.

    Args:
        parser: the parser to extend.
        title: the title of the option group in the help.
        kind: a dataclass; its docstring and those of nested dataclasses describe every field under ``Args``.
        other_defaults: defaults by option name that override those of the dataclass.
        only: the names of the options to add. None: all.
    """
    group = parser.add_argument_group(title)
    types, defaults = option_types(kind), options_of(kind()) | dict(other_defaults)
    for name in option_places(kind):
        if only is None or name in only:
            add_option(group, name, types[name], defaults[name], _helps(owner(kind, name))[name])


def reader(hint: Any) -> Callable[[Any], Any]:
    """Return `read_value` for a type as a function that argparse accepts as ``type``, named as in the help."""

    def read(given: Any) -> Any:
        try:
            return read_value(hint, given)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    read.__name__ = type_name(hint)
    return str if hint is str else read


def check_levels(option: str, levels: Sequence[float]) -> None:
    """Check that the values of an option are distinct probabilities above 0 and below 1.

    Args:
        option: the option as it is written on the command line.
        levels: its values.

    Raises:
        InputError: a value is out of range or repeated. The message names the first.
    """
    for number, level in enumerate(levels):
        if not 0 < level < 1:
            raise InputError(f"{option} requires numbers above 0 and below 1, not {level:g}")
        if level in levels[:number]:
            raise InputError(f"{option} has {level:g} twice: give each number once")


def first_line(kind: type) -> str:
    """Return the first line of a class's docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def listing(lines: Mapping[str, str]) -> str:
    """Format names and their descriptions as an aligned list for a help text, one per line."""
    width = max(map(len, lines))
    return "\n".join(f"  {name:<{width}}   {text}" for name, text in lines.items())


def first_look(words: Sequence[str], *options: str) -> argparse.Namespace:
    """Parse a few options before the others, because they determine which others exist.

    Args:
        words: the words of the command line.
        options: the options to parse, as written on the command line.

    Returns:
        The value of each option, None where it was not given, and whether ``--resume`` was.

    Raises:
        InputError: ``--resume`` was given a value.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option in options:
        parser.add_argument(option, nargs="?")
    parser.add_argument("--resume", action="store_true")
    try:
        return parser.parse_known_args(words)[0]
    except argparse.ArgumentError as error:
        raise InputError(f"{error.argument_name}: {error.message}") from error


def _nearest(option: str, known: list[str]) -> str | None:
    """Return the option that was probably meant: the same initials, the same beginning, or a similar spelling."""
    initials = [name for name in known if "".join(word[0] for word in name.split("-") if word) == option]
    begins = [name for name in known if option and name.startswith(option)]
    return next(iter([*initials, *begins, *get_close_matches(option, known, n=1)]), None)


def _helps(kind: type) -> dict[str, str]:
    """Return the description of each field from a dataclass's docstring, with None written as the YAML ``null``."""
    params = docstring_parser.parse(inspect.cleandoc(kind.__doc__ or "")).params
    return {param.arg_name: re.sub(r"\bNone\b", "null", param.description or "") for param in params}
