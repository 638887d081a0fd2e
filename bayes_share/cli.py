"""The command line."""

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import ActionYesNo

from bayes_share.errors import InputError, RunError, unknown
from bayes_share.interrupt import terminable
from bayes_share.options import OptionParser, add_options, first_line
from bayes_share.version import __version__

_HELP = """usage: bayes-share COMMAND [OPTIONS]

The uncertainty of an ensemble for the price of one network.

commands:
  quickstart   a single network, a BatchEnsemble and a deep ensemble on real images, compared in a minute
  fit          train a network and write its predictions into a run folder
  evaluate     scores and a reliability picture from the predictions of runs
  report       a page on runs: scores, calibration, other and corrupted images, members, and how to run them again
  study        many runs in one folder, with tables over seeds and pictures of convergence

'bayes-share COMMAND --help' explains a command, '--version' gives the version.
"""

_FIT_HELP = """usage: bayes-share fit ALGORITHM --out RUN [OPTIONS]
       bayes-share fit --config RUN/config.yaml --out NEW_RUN [OPTIONS]
       bayes-share fit --preset NAME --out RUN [OPTIONS]
       bayes-share fit --resume --out RUN

Train a network and write metrics, checkpoints and predictions into the folder RUN.

algorithms:
{algorithms}

presets, which options override:
{presets}

examples:
  bayes-share fit map --out runs/digits
  bayes-share fit map --data cifar10 --model resnet20 --ensemble-size 4 --out runs/batch-ensemble
  bayes-share fit deep-ensemble --of map --networks 4 --data cifar10 --model resnet20 --out runs/deep-ensemble

'bayes-share fit ALGORITHM --help' explains the options of an algorithm, with their defaults.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and give its exit code: 0, 1 where a run had to stop, 2 for bad input, 130 after Ctrl-C or SIGTERM.

    SIGTERM ends a command as Ctrl-C does: what it was at is saved, and said in a line.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with terminable():
            return _dispatch(arguments)
    except InputError as error:
        print(f"bayes-share: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"bayes-share: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print("bayes-share: not enough memory: take a smaller network, batch or number of members", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"bayes-share: {str(error) or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # what read the output, as `head` does, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor is there anywhere to flush to at the end
        return 141


def _is_out_of_memory(error: Exception) -> bool:
    """Torch says it by a `RuntimeError`, of a kind of its own only on a GPU."""
    said = str(error)
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said


def _dispatch(arguments: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], None]] = {
        "quickstart": _quickstart,
        "fit": _fit,
        "evaluate": _evaluate,
        "report": _report,
        "study": _study,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
    elif arguments[0] == "--version":
        print(f"bayes-share {__version__}")
    elif arguments[0] not in commands:
        raise unknown("command", arguments[0], commands)
    else:
        try:
            commands[arguments[0]](arguments[1:])
        except SystemExit as stop:  # after --help
            return int(stop.code or 0)
    return 0


def _fit(arguments: list[str]) -> None:
    from bayes_share.config import RunConfig
    from bayes_share.run import run

    if not arguments or arguments[0] in ("-h", "--help"):
        print(_FIT_HELP.format(algorithms=_algorithm_lines(), presets=_preset_lines()), end="")
        return
    named = arguments.pop(0) if not arguments[0].startswith("-") else None
    first = _first_look(arguments)
    saved, origin = _saved_options(first)
    saved_algorithm, saved_of = saved.pop("algorithm", None), saved.pop("of", None)
    algorithm = named or saved_algorithm
    if first.out == "":
        raise InputError("--out names the folder of the run, and is empty")
    if algorithm is None and first.resume and first.out is not None:
        raise InputError(f"there is no run in {first.out} to go on with; name an algorithm to begin one")
    if algorithm is None:
        raise InputError("which algorithm? 'bayes-share fit --help' lists them; or give a --config or --preset")
    if first.preset is not None and saved_algorithm != algorithm:
        raise InputError(f"preset {first.preset} is of algorithm {saved_algorithm}, not {algorithm}")
    if first.config is not None and saved_algorithm not in (None, algorithm):
        raise InputError(
            f"{first.config} is a config of algorithm {saved_algorithm}, not {algorithm}: name none, or take from the "
            f"file what is not of {saved_algorithm}"
        )
    if saved_algorithm not in (None, algorithm):
        raise InputError(
            f"{first.out} is a run with algorithm {saved_algorithm}, which cannot be resumed with {algorithm}"
        )
    parser = _fit_parser(str(algorithm), first.of or str(saved_of or "map"))
    known = set(vars(parser.get_defaults())) - {"out", "resume", "config", "preset", "progress", "of"}
    for name in saved:
        if name not in known:
            raise unknown("option", name, known, origin)
    saved_arguments = _as_arguments(saved, parser)
    try:
        parser.parse_args(saved_arguments)
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error
    options = vars(parser.parse_args([*saved_arguments, *arguments]))
    if options["out"] is None:
        raise InputError("where to? --out RUN names the folder of the run")
    config = RunConfig.from_flat({**options, "algorithm": algorithm})
    out = Path(options["out"])
    if options["resume"] and not out.exists():
        print(f"there is no run in {out} yet; it begins", file=sys.stderr)
    with _showing_log():
        run(config, out, options["resume"], options["progress"])
    print(f"run in {out}; 'bayes-share evaluate {shlex.quote(str(out))}' shows its scores")


@contextmanager
def _showing_log() -> Iterator[None]:
    """Print what the library logs on stderr, each line once."""
    logger, handler, seen = logging.getLogger("bayes_share"), logging.StreamHandler(), set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        line = record.getMessage()
        was_seen = line in seen
        seen.add(line)
        return not was_seen

    handler.addFilter(is_new)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _saved_options(first: argparse.Namespace) -> tuple[dict[str, Any], str | None]:
    """The options that those given are added to, and where they come from: a preset, a file, or the run resumed."""
    from bayes_share.config import read_config
    from bayes_share.presets import preset

    if first.preset is not None:
        if first.config is not None:
            raise InputError("--preset and --config are two beginnings: give one of them, and the rest as options")
        return preset(first.preset), f"preset {first.preset}"
    file = first.config
    if file is None and first.resume and first.out is not None and os.path.isfile(Path(first.out) / "config.yaml"):
        file = str(Path(first.out) / "config.yaml")
    return ({} if file is None else read_config(Path(file))), file


def _as_arguments(saved: Mapping[str, Any], parser: OptionParser) -> list[str]:
    """The options of a file as if they had been given, so that they are checked in the same way."""
    arguments = []
    for name, value in saved.items():
        option = name.replace("_", "-")
        if isinstance(value, bool) and isinstance(parser.get_default(name), bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        else:
            arguments.append(f"--{option}={value if isinstance(value, str) else json.dumps(value, default=str)}")
    return arguments


def _first_look(arguments: list[str]) -> argparse.Namespace:
    """What decides which other options there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=None)
    for option in ("--config", "--preset", "--of", "--out"):
        parser.add_argument(option, nargs="?")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(arguments)[0]


def _fit_parser(algorithm: str, inner: str) -> OptionParser:
    from bayes_share.config import RunConfig, algorithm_type, has_inner, run_defaults
    from bayes_share.inference import Execution

    kind = algorithm_type(algorithm)
    usage = f"bayes-share fit {algorithm} --out RUN [OPTIONS]"
    prog = f"bayes-share fit {algorithm}"
    parser = OptionParser(prog=prog, usage=usage, description=first_line(kind), allow_abbrev=False)
    run_options = parser.add_argument_group("the run")
    run_options.add_argument("--out", type=str, default=None, help="folder of the run; must not exist yet")
    run_options.add_argument("--resume", action="store_true", help="go on with the run in --out, if there is one")
    run_options.add_argument("--config", type=str, default=None, help="a run's config.yaml; options override it")
    run_options.add_argument("--preset", type=str, default=None, help="a published recipe; options override it")
    run_options.add_argument(
        "--progress", action=ActionYesNo(no_prefix="no-"), default=True, help="whether a progress bar is shown"
    )
    add_options(parser, f"the algorithm, {algorithm}", kind)
    if has_inner(kind):
        inner_kind = algorithm_type(inner)
        if has_inner(inner_kind):
            raise InputError(f"{algorithm} cannot run {inner}, which runs an algorithm itself")
        run_options.add_argument("--of", type=str, default=inner, help="name of the algorithm that trains each network")
        add_options(parser, f"the algorithm of each network, {inner}", inner_kind)
    other_defaults = run_defaults(algorithm, inner if has_inner(kind) else None)
    add_options(parser, "data, network and training", RunConfig, other_defaults)
    add_options(parser, "execution", Execution)
    return parser


def _algorithm_lines() -> str:
    from bayes_share.inference import ALGORITHMS

    width = max(map(len, ALGORITHMS))
    return "\n".join(f"  {name:<{width}}   {first_line(kind)}" for name, kind in ALGORITHMS.items())


def _preset_lines() -> str:
    from bayes_share.presets import SUMMARIES

    width = max(map(len, SUMMARIES))
    return "\n".join(f"  {name:<{width}}   {summary}" for name, summary in SUMMARIES.items())


def _evaluate(arguments: list[str]) -> None:
    from bayes_share.evaluate import evaluate

    evaluate(arguments)


def _quickstart(arguments: list[str]) -> None:
    parser = OptionParser(
        prog="bayes-share quickstart",
        description="A single network, a BatchEnsemble of 4 and a deep ensemble of 4 on scikit-learn's scans of "
        "handwritten digits: trains, compares, and draws how well each is calibrated.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=str, default="runs/quickstart", help="folder of the runs; goes on where it was")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation, order and noise")
    options = parser.parse_args(arguments)

    from bayes_share.quickstart import quickstart

    quickstart(Path(options.out), options.seed)


def _study(arguments: list[str]) -> None:
    from bayes_share.study.command import study

    study(arguments)


def _report(arguments: list[str]) -> None:
    from bayes_share.report.command import report

    report(arguments)
