"""Command-line options from records: names, types and defaults of their fields, help from their docstrings."""

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

set_loader("text", lambda text: text)  # jsonargparse's own reader takes every text for YAML, with anchors


class OptionParser(ArgumentParser):
    """A parser whose complaints are one-line `InputError`s, with the nearest name that exists."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, parser_mode="text", **settings)
        self._negative_number_matcher = _NEGATIVE  # argparse's own takes -1e3 for an option

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what argparse would print."""
        name = ex.argument_name if isinstance(ex, argparse.ArgumentError) else None
        is_of_option = name is not None and name.startswith("-")
        if not is_of_option and (option := self._unknown_option()) is not None:
            near = _nearest(option.lstrip("-"), [known.lstrip("-") for known in self._known()])
            hint = f"did you mean --{near}? " if near else ""
            raise InputError(f"unknown option {option}: {hint}'{self.prog} --help' lists all options") from ex
        if isinstance(ex, argparse.ArgumentError) and name is not None:
            is_of_reader = isinstance(ex.__context__, argparse.ArgumentTypeError)
            raise InputError(f"{name}{' ' if is_of_reader else ': '}{ex.message}") from ex
        raise InputError(" ".join(message.split())) from ex

    def _print_message(self, message: str, file: Any = None) -> None:
        """Help and the version, which argparse would lose without a word where they cannot be written."""
        show(message.rstrip("\n"))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Where a path of no characters would be the current folder, and argparse would lose that of --option=--."""
        if action.option_strings and arg_strings in (["--"], [""]):
            raise argparse.ArgumentError(action, f"expected a value, not {arg_strings[0]!r}")
        return super()._get_values(action, arg_strings)

    def _parse_optional(self, arg_string: str) -> Any:
        """Where jsonargparse would take --option.x for a part of the option."""
        return argparse.ArgumentParser._parse_optional(self, arg_string)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Where argparse would list the choices alone."""
        if action.choices is not None and value not in action.choices:
            raise unknown(action.dest, value, action.choices)

    def _known(self) -> list[str]:
        return [name for action in self._actions for name in action.option_strings]

    def _unknown_option(self) -> str | None:
        """The first word that looks like an option and is none; the words are those that were last parsed."""
        given = [word.partition("=")[0] for word in self.args if word.startswith("-") and not _NEGATIVE.match(word)]
        return next((option for option in given if option not in self._known()), None)


class _Formatter(DefaultHelpFormatter):
    """Descriptions keep their lines; an option's help ends with what it takes and its default."""

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
    """Add one option.

    Args:
        container: a parser or a group of one.
        name: in Python's spelling.
        hint: its type, as `read_value` takes it.
        default: where it is not given; a tuple is shown as the list that a user writes.
        text: of the help.
        settings: what else argparse is told.
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
    """Add an option for each of a record, and of the records among its values.

    Args:
        parser: gets the options.
        title: of their group in the help.
        kind: a dataclass; its docstring, and that of each record among its values, explains every field under ``Args``.
        other_defaults: by name, in place of the record's own.
        only: the options to add, where not all are.
    """
    group = parser.add_argument_group(title)
    types, defaults = option_types(kind), options_of(kind()) | dict(other_defaults)
    for name in option_places(kind):
        if only is None or name in only:
            add_option(group, name, types[name], defaults[name], _helps(owner(kind, name))[name])


def reader(hint: Any) -> Callable[[Any], Any]:
    """A function that argparse takes for a type: `read_value`, with the name of the type for the help."""

    def read(given: Any) -> Any:
        try:
            return read_value(hint, given)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    read.__name__ = type_name(hint)
    return str if hint is str else read


def check_levels(option: str, levels: Sequence[float]) -> None:
    """See whether the numbers of an option are probabilities between 0 and 1, each given once.

    Args:
        option: as it is written on the command line.
        levels: what was given.

    Raises:
        InputError: they are not; names the first.
    """
    for number, level in enumerate(levels):
        if not 0 < level < 1:
            raise InputError(f"{option} requires numbers above 0 and below 1, not {level:g}")
        if level in levels[:number]:
            raise InputError(f"{option} has {level:g} twice: give each number once")


def first_line(kind: type) -> str:
    """What a class is, in the first line of its docstring."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def listing(lines: Mapping[str, str]) -> str:
    """Names with what they are, one below the other, for a help text."""
    width = max(map(len, lines))
    return "\n".join(f"  {name:<{width}}   {text}" for name, text in lines.items())


def first_look(words: Sequence[str], *options: str) -> argparse.Namespace:
    """The values of a few options, where what others there are depends on them; None where one is not given.

    Args:
        words: of the command line.
        options: by their names on it.

    Raises:
        InputError: ``--resume`` is given a value.
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
    """The option that is meant: of these initials, beginning so, or spelt nearly so."""
    initials = [name for name in known if "".join(word[0] for word in name.split("-") if word) == option]
    begins = [name for name in known if option and name.startswith(option)]
    return next(iter([*initials, *begins, *get_close_matches(option, known, n=1)]), None)


def _helps(kind: type) -> dict[str, str]:
    """What the docstring of a record says of each field, with the command line's name of None."""
    params = docstring_parser.parse(inspect.cleandoc(kind.__doc__ or "")).params
    return {param.arg_name: re.sub(r"\bNone\b", "null", param.description or "") for param in params}
