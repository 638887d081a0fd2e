"""``bayes-share fit``: train a network, and write the results into a run folder."""

import logging
import os
import shlex
from argparse import SUPPRESS, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bayes_share.errors import InputError
from bayes_share.inference import ALGORITHMS, Execution
from bayes_share.inference.step.ranks import joined_by_torchrun
from bayes_share.io.terminal import printable, show
from bayes_share.options.parser import OptionParser, add_option, add_options, first_line, first_look, listing, reader
from bayes_share.runs.algorithms import algorithm_type, inner_name, run_defaults
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat, read_config, read_options
from bayes_share.runs.presets import SUMMARIES, preset
from bayes_share.runs.run import run as make_run

_USAGE = """bayes-share fit ALGORITHM --out RUN [OPTIONS]
       bayes-share fit --config RUN/config.yaml --out NEW_RUN [OPTIONS]
       bayes-share fit --preset NAME --out RUN [OPTIONS]
       bayes-share fit --resume --out RUN"""

_OVERVIEW = """Train a network and write metrics, checkpoints and predictions into the folder RUN.

algorithms:
{algorithms}

presets, which options override:
{presets}

examples:
  bayes-share fit map --out runs/digits
  bayes-share fit map --data cifar10 --model resnet20 --ensemble-size 4 --out runs/batch-ensemble
  bayes-share fit deep-ensemble --of map --networks 4 --data cifar10 --model resnet20 --out runs/deep
  bayes-share fit distill --teacher runs/deep --data cifar10 --model resnet20 --ensemble-size 4 --out runs/student

'bayes-share fit ALGORITHM --help' explains the options of an algorithm, with their defaults."""


@dataclass(frozen=True)
class _StartingOptions:
    """The options to start from, before those on the command line are added.

    Args:
        options: options of a preset, a config or the resumed run, converted to their types and including the algorithm.
        origin: where the options come from, for error messages.
    """

    options: dict[str, Any] = field(default_factory=dict)
    origin: str | None = None


def parser(words: Sequence[str]) -> OptionParser:
    """Return the parser for the arguments of ``fit``, whose options depend on the algorithm.

    Raises:
        InputError: if the algorithm or preset is unknown, or a config is invalid.
    """
    named = None if not words or words[0].startswith("-") else words[0]
    first = first_look(words, "--config", "--preset", "--of", "--out")
    if first.out == "":
        _check_out(first.out)
    start = _starting_options(first, named)
    if named is None and not start.options and (not words or {"-h", "--help"} & set(words)):
        algorithms = listing({name: first_line(kind) for name, kind in ALGORITHMS.items()})
        return OptionParser(
            usage=_USAGE, description=_OVERVIEW.format(algorithms=algorithms, presets=listing(SUMMARIES))
        )
    algorithm = _algorithm(named, first, start)
    inner = inner_name(algorithm, first.of or start.options.get("of"))
    made = _parser(algorithm, inner)
    made.set_defaults({name: value for name, value in start.options.items() if name != "algorithm"})
    return made


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: if an option or an input file is invalid.
        RunError: if the run had to stop.
        InterruptedRun: if the run was interrupted.
    """
    given = dict(vars(options))
    if "out" not in given:
        return parser([]).print_help()
    out, resume, progress = (given.pop(name) for name in ("out", "resume", "progress"))
    _check_out(out)
    for name in ("config", "preset"):
        given.pop(name)
    config = from_flat(given)
    with joined_by_torchrun(config.execution.torch_device) as ranks:
        if not ranks.is_first:
            logging.disable()  # the first process logs everything
        folder = make_run(config, Path(out), resume, progress)
        if not ranks.is_first:
            return None

    from bayes_share.reports.score_line import score_line

    show(score_line(folder))
    show(f"run folder: {printable(out)}; 'bayes-share evaluate {shlex.quote(printable(out))}' shows its scores")
    return None


def _check_out(out: str | None) -> None:
    if not out:
        raise InputError("missing --out RUN, the folder of the run")


def _starting_options(first: Namespace, named: str | None) -> _StartingOptions:
    if first.preset is not None and first.config is not None:
        raise InputError("--preset and --config cannot be combined: give one of them, and other settings as options")
    if first.preset is not None:
        return _StartingOptions(read_options(preset(first.preset)), f"preset {first.preset}")
    saved = Path(first.out) / "config.yaml" if first.resume and first.out else None
    file = saved if first.config is None and saved is not None and os.path.isfile(saved) else first.config
    if file is None:
        return _StartingOptions()
    values = read_config(Path(file))
    if named is not None:
        values = {"algorithm": named, **values}
    return _StartingOptions(read_options(values, str(file)), str(file))


def _algorithm(named: str | None, first: Namespace, start: _StartingOptions) -> str:
    saved = start.options.get("algorithm")
    if named is None and saved is None:
        if first.resume:
            _check_out(first.out)
            raise InputError(f"no run to resume in {first.out}; name an algorithm to start a new run")
        raise InputError(
            "missing algorithm: give its name before all options ('bayes-share fit --help' lists the "
            "algorithms), or give --config or --preset"
        )
    if named is None or saved in (None, named):
        return str(saved if named is None else named)
    if first.resume and first.config is None and first.preset is None:
        raise InputError(f"the run in {first.out} uses algorithm {saved}, and cannot be resumed with {named}")
    algorithm_type(named)
    raise InputError(
        f"{start.origin} uses algorithm {saved}, not {named}: leave out {named}, or use another config or preset"
    )


def _parser(algorithm: str, inner: str | None) -> OptionParser:
    kind = algorithm_type(algorithm)
    prog = f"bayes-share fit {algorithm}"
    made = OptionParser(prog=prog, usage=f"{prog} --out RUN [OPTIONS]", description=first_line(kind))
    made.add_argument("algorithm", nargs="?", type=reader(Literal[algorithm]), help=SUPPRESS)
    made.set_defaults(algorithm=algorithm)
    own = made.add_argument_group("the run")
    add_option(own, "out", str, None, "folder for the run; must not exist, unless with --resume")
    own.add_argument(
        "--resume", action="store_true", help="resume the run in --out, or start a new one if there is none"
    )
    add_option(own, "config", str, None, "config.yaml of a run to start from; options override its values")
    add_option(own, "preset", str, None, "published recipe to start from; options override its values")
    add_option(own, "progress", bool, True, "whether to show a progress bar")
    add_options(made, f"options of the algorithm {algorithm}", kind)
    if inner is not None:
        add_option(own, "of", str, inner, "name of the inner algorithm")
        add_options(made, f"options of the inner algorithm {inner}", algorithm_type(inner))
    add_options(made, "data, network and training", RunConfig, run_defaults(algorithm, inner))
    add_options(made, "execution", Execution)
    return made
