"""``bayes-share study``: the command line of the studies."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionYesNo

from bayes_share.config import RunConfig, option_fields, read_config
from bayes_share.errors import InputError, RunError, unknown
from bayes_share.files import write_atomically
from bayes_share.inference import Execution
from bayes_share.options import OptionParser, add_options
from bayes_share.run import RunFolder
from bayes_share.study.optimizers import COMMON_OPTIONS, METHODS, RECIPES, OptimizerStudy
from bayes_share.study.runner import check_runs, run_all
from bayes_share.study.summary import Summary, read_result

_HELP = """usage: bayes-share study STUDY [OPTIONS]

Many independent runs in one folder, with tables over seeds and pictures of convergence.

studies:
  optimizers   SGD, AdamW, IVON and SVI, for a single network and for BatchEnsembles

'bayes-share study STUDY --help' explains a study.
"""

_SHOWN_FAILURES = 3
_FILE = "study.yaml"


def study(arguments: list[str]) -> None:
    """Run the study that the first argument names.

    Raises:
        InputError: what cannot be used, before any run begins.
        RunError: runs failed; all others are finished and in the tables.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_HELP, end="")
    elif arguments[0] == "optimizers":
        _optimizers(arguments[1:])
    else:
        raise unknown("study", arguments[0], ["optimizers"])


def _optimizers(arguments: list[str]) -> None:
    first = _first_look(arguments)
    saved = _saved(first)
    preset = str(first.preset or saved.get("preset", "digits"))
    if preset not in RECIPES:
        raise unknown("preset of the study", preset, RECIPES)
    parser = _parser(preset)
    known = {"methods", "sizes", "seeds", "preset", *COMMON_OPTIONS, *option_fields(Execution)}
    for name in saved:
        if name not in known:
            raise unknown(f"option in {Path(first.out) / _FILE}:", name, known)
    options = vars(parser.parse_args([*_as_arguments(saved), *arguments]))
    of_runs = {name: options[name] for name in (*COMMON_OPTIONS, *option_fields(Execution))}
    chosen = OptimizerStudy(tuple(options["methods"]), tuple(options["sizes"]), options["seeds"], preset, of_runs)
    out = Path(options["out"])
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a study needs a folder")
    if out.exists() and any(out.iterdir()) and not options["resume"]:
        raise InputError(f"{out} exists: go on with it by --resume, or give another folder")
    chosen.check()
    check_runs(_by_name(chosen), out / "runs", options["jobs"])
    asked = {"methods": options["methods"], "sizes": options["sizes"], "seeds": chosen.seeds, "preset": preset}
    _make(chosen, out, {**asked, **of_runs}, options["jobs"], options["progress"])


def _make(chosen: OptimizerStudy, out: Path, asked: Mapping[str, Any], jobs: int, progress: bool) -> None:
    runs = out / "runs"
    write_atomically(out / _FILE, yaml.safe_dump(dict(asked), sort_keys=False).encode())
    trials = list(chosen.configs())
    failed = run_all(_by_name(chosen), runs, jobs, progress)
    finished = [trial for trial in trials if trial.name not in failed]
    if finished:
        summary = Summary([read_result(trial, RunFolder(runs / trial.name)) for trial in finished])
        summary.write(out, f"{asked['model']} on {asked['data']}")
        print(summary.tables())
        print(f"tables and pictures: {out}; each run: {runs}")
    if failed:
        raise RunError(_failures(failed, len(trials)))


def _by_name(chosen: OptimizerStudy) -> dict[str, RunConfig]:
    return {trial.name: config for trial, config in chosen.configs().items()}


def _failures(failed: Mapping[str, str], count: int) -> str:
    lines = [f"{name} ({reason})" for name, reason in failed.items()]
    more = f" and {len(lines) - _SHOWN_FAILURES} more" if len(lines) > _SHOWN_FAILURES else ""
    shown = "; ".join(lines[:_SHOWN_FAILURES])
    return f"{len(failed)} of {count} runs failed, the others are finished; --resume tries again: {shown}{more}"


def _first_look(arguments: list[str]) -> argparse.Namespace:
    """What decides which options there are, and what their defaults are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", nargs="?", default="runs/optimizers")
    parser.add_argument("--preset", nargs="?")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(arguments)[0]


def _saved(first: argparse.Namespace) -> dict[str, Any]:
    """The options of the study that is to be resumed."""
    file = Path(first.out or "") / _FILE
    return read_config(file) if first.resume and file.is_file() else {}


def _as_arguments(saved: Mapping[str, Any]) -> list[str]:
    """The options of a file as if they had been given, so that they are checked in the same way."""
    arguments: list[str] = []
    for name, value in saved.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        elif isinstance(value, list):
            arguments += [f"--{option}", *map(str, value)]
        else:
            arguments.append(f"--{option}={value if isinstance(value, str) else json.dumps(value)}")
    return arguments


def _parser(preset: str) -> OptionParser:
    parser = OptionParser(
        prog="bayes-share study optimizers",
        usage="bayes-share study optimizers [OPTIONS]",
        description="SGD, AdamW, IVON and SVI, for a single network and for BatchEnsembles, over seeds: as many "
        "gradient steps for each, a table with paired differences, and pictures of convergence. Test images choose "
        "nothing.",
        allow_abbrev=False,
    )
    grid = parser.add_argument_group("the study")
    grid.add_argument(
        "--out", type=str, default="runs/optimizers", help="folder of runs, tables and pictures; must not exist yet"
    )
    grid.add_argument("--resume", action="store_true", help="go on with the study in --out, or add to it")
    grid.add_argument("--methods", type=str, nargs="+", default=list(METHODS), help="which methods, one or more")
    grid.add_argument(
        "--sizes", type=int, nargs="+", default=[1, 2, 4, 8], help="members of the ensembles; 1: a single network"
    )
    grid.add_argument("--seeds", type=int, default=5, help="how many seeds; they count from 0")
    summaries = "; ".join(f"{name!r}: {recipes.summary}" for name, recipes in RECIPES.items())
    grid.add_argument("--preset", type=str, default=preset, help=f"hyperparameters of each method. {summaries}")
    grid.add_argument("--jobs", type=int, default=2, help="runs at a time, which share the machine's cores")
    grid.add_argument(
        "--progress", action=ActionYesNo(no_prefix="no-"), default=True, help="whether a progress bar is shown"
    )
    add_options(parser, "data, network and training", RunConfig, RECIPES[preset].common, COMMON_OPTIONS)
    add_options(parser, "execution", Execution)
    return parser
