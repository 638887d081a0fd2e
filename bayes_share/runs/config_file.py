"""Run options as flat mappings, for config files, presets and the command line."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bayes_share.errors import InputError, for_command_line
from bayes_share.inference import ALGORITHMS, Execution, Inference
from bayes_share.io.reading import read_text, reading
from bayes_share.options.records import option_places, options_of
from bayes_share.options.values import dump_yaml, load_yaml, option_types, read_values
from bayes_share.runs.algorithms import algorithm_name, algorithm_type, has_inner, inner_name, run_defaults
from bayes_share.runs.config import RunConfig

_OLD_DEFAULTS = ("normal", "random_sign")  # of init
_MAX_BYTES = 2**20  # of a config file


def to_flat(config: RunConfig) -> dict[str, Any]:
    """Return all options as plain values by their names on the command line."""
    own = {name: value for name, value in asdict(config).items() if name not in ("algorithm", "execution")}
    flat = {**_flat_algorithm("algorithm", config.algorithm), **own, **asdict(config.execution)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def from_flat(values: Mapping[str, Any], origin: str | None = None) -> RunConfig:
    """Build a `RunConfig` from flat options: the inverse of `to_flat`.

    Options that are not given have the defaults of the algorithm.

    Args:
        values: options by name.
        origin: file that the options come from, for error messages.

    Raises:
        InputError: if an option is unknown, or a value has the wrong type or is invalid.
    """
    given = read_options(values, origin)
    given = {**run_defaults(given["algorithm"], given.get("of")), **given}
    own, execution = ({k: given[k] for k in option_places(kind) if k in given} for kind in (RunConfig, Execution))
    try:
        with nullcontext() if origin is None else for_command_line(False):  # config files spell options as Python does
            return RunConfig(_algorithm(given["algorithm"], given), execution=Execution(**execution), **own)
    except InputError as error:
        raise error if origin is None else InputError(f"{origin}: {error}") from error


def to_yaml(config: RunConfig) -> str:
    """Return the config file, from which the run can be started again.

    Raises:
        InputError: if the value of an option cannot be saved in a file, such as a function.
    """
    try:
        return dump_yaml(to_flat(config))
    except yaml.representer.RepresenterError as error:
        raise InputError(f"the options of a run must be plain values, not {error.args[-1]!r}") from error


def run_types(name: str, inner: str | None) -> dict[str, Any]:
    """Return the types of all options of a run, by name.

    Args:
        name: command-line name of the algorithm.
        inner: command-line name of its inner algorithm, if any.

    Raises:
        InputError: if a name is unknown; the message suggests the closest one.
    """
    kinds = [RunConfig, Execution, *(algorithm_type(one) for one in (name, inner) if one is not None)]
    types = {kind: option_types(kind) for kind in kinds}
    return {option: types[kind][option] for kind in kinds for option in option_places(kind)}


def read_options(values: Mapping[str, Any], origin: str | None = None) -> dict[str, Any]:
    """Convert the options of a run, including the algorithm, to their types.

    Args:
        values: options by name.
        origin: file that the options come from, for error messages.

    Raises:
        InputError: if the algorithm is missing, an option is unknown, or a value has the wrong type.
    """
    if values.get("algorithm") is None:
        raise InputError(f"missing algorithm: {origin or 'the options'} must name one of {', '.join(ALGORITHMS)}")
    name, of = str(values["algorithm"]), values.get("of")
    inner = inner_name(name, None if of is None else str(of))
    names = {"algorithm": name} | ({} if inner is None else {"of": inner})
    others = {option: value for option, value in values.items() if option not in names}
    return {**names, **read_values(others, run_types(name, inner), origin)}


def read_config(path: Path) -> dict[str, Any]:
    """Read the options in a config file, by name.

    Raises:
        InputError: if the file does not exist or is not a mapping of options to values.
    """
    text = read_text(path, "a config", largest=_MAX_BYTES)
    with reading(path, "a config in YAML"):
        values = load_yaml(text)
    if not isinstance(values, dict):
        raise InputError(f"config {path} must consist of lines 'option: value'")
    named = {str(name).replace("-", "_"): value for name, value in values.items()}
    if len(named) < len(values):
        raise InputError(f"config {path} has an option twice, spelled with - and with _")
    if named.get("ensemble_kind", "factors") != "factors" and named.get("init") in _OLD_DEFAULTS:
        del named["init"]  # older versions recorded their default although it was not used
    return named


def read_run_config(path: Path) -> RunConfig:
    """Read the config of a run. Options that are missing, as in runs of older versions, have their defaults.

    Raises:
        InputError: if the file does not exist or is not the config of a run; the message names the invalid option.
    """
    return from_flat(read_config(path), str(path))


def _algorithm(name: str, options: Mapping[str, Any]) -> Inference[Any]:
    kind = algorithm_type(name)
    own = {option: options[option] for option in option_places(kind) if option in options}
    return kind(**own, of=_algorithm(options["of"], options)) if has_inner(kind) else kind(**own)


def _flat_algorithm(key: str, algorithm: Inference[Any]) -> dict[str, Any]:
    """Return the options of an algorithm.

    Raises:
        InputError: if the algorithm cannot be rebuilt from these options.
    """
    kind, name, own = type(algorithm), algorithm_name(algorithm), options_of(algorithm)
    of: dict[str, Any] = {"of": algorithm.of} if has_inner(kind) else {}  # type: ignore[attr-defined]
    if kind(**own, **of) != algorithm:
        raise InputError(
            f"{name} holds a Python object, such as an objective, that cannot be saved in a config: train it "
            "with fit() in Python"
        )
    if of:
        inner_name(name, algorithm_name(of["of"]))
    return {key: name, **own, **(_flat_algorithm("of", of["of"]) if of else {})}
