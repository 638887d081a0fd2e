"""``bayes-share study``: the command line of the studies."""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionYesNo

from bayes_share.config import RunConfig, read_config
from bayes_share.data.load import short_name
from bayes_share.errors import RunError, unknown
from bayes_share.files import write_atomically
from bayes_share.lock import alone_in
from bayes_share.options import OptionParser, add_options
from bayes_share.run_folder import RunFolder, check_folder_of_runs
from bayes_share.study.cluster import run_all_on_ray
from bayes_share.study.definition import Study, check_settings
from bayes_share.study.runner import check_runs, run_all
from bayes_share.study.studies import STUDIES

_HELP = """usage: bayes-share study STUDY [OPTIONS]

Many independent runs in one folder, with tables over seeds and pictures.

studies:
{studies}

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
        width = max(map(len, STUDIES))
        print(
            _HELP.format(studies="\n".join(f"  {name:<{width}}   {one.title}" for name, one in STUDIES.items())), end=""
        )
    elif arguments[0] in STUDIES:
        _make(STUDIES[arguments[0]], arguments[1:])
    else:
        raise unknown("study", arguments[0], STUDIES)


def _make(kind: Study, arguments: list[str]) -> None:
    first = _first_look(kind, arguments)
    saved = _saved(first)
    preset = str(first.preset or saved.get("preset", "digits"))
    if preset not in kind.presets:
        raise unknown("preset of the study", preset, kind.presets)
    grid = [option.name for option in kind.grid(preset)]
    known = [*grid, "seeds", "preset", *kind.run_options]
    for name in saved:
        if name not in known:
            raise unknown("option", name, known, str(Path(first.out) / _FILE))
    options = vars(_parser(kind, preset).parse_args([*_as_arguments(saved, grid), *arguments]))
    out = Path(options["out"])
    check_folder_of_runs(out, options["resume"])
    of_runs = {name: options[name] for name in kind.run_options}
    configs = kind.configs(preset, {name: options[name] for name in grid}, options["seeds"], of_runs)
    check_settings(configs)
    asked = {name: options[name] for name in known}
    with alone_in(out):
        check_folder_of_runs(out, options["resume"])  # again: another process may have been at work till now
        check_runs({trial.name: config for trial, config in configs.items()}, out / "runs", options["jobs"])
        _run(kind, configs, out, asked, options)


def _run(
    kind: Study, configs: Mapping[Any, RunConfig], out: Path, asked: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    write_atomically(out / _FILE, yaml.safe_dump(plain, sort_keys=False).encode())
    runs, by_name = out / "runs", {trial.name: config for trial, config in configs.items()}
    if options["ray"] is None:
        failed = run_all(by_name, runs, options["jobs"], options["progress"])
    else:
        failed = run_all_on_ray(by_name, runs, options["ray"], options["progress"])
    finished = {trial: RunFolder(runs / trial.name) for trial in configs if trial.name not in failed}
    if finished:
        summary = kind.summary(finished)
        summary.write(out, f"{asked['model']} on {short_name(asked['data'])}")
        print(summary.tables())
        print(f"tables and pictures: {out}; each run: {runs}")
    if failed:
        raise RunError(_failures(failed, len(configs)))


def _failures(failed: Mapping[str, str], count: int) -> str:
    lines = [f"{name} ({reason})" for name, reason in failed.items()]
    more = f" and {len(lines) - _SHOWN_FAILURES} more" if len(lines) > _SHOWN_FAILURES else ""
    shown = "; ".join(lines[:_SHOWN_FAILURES])
    return f"{len(failed)} of {count} runs failed, the others are finished; --resume tries again: {shown}{more}"


def _first_look(kind: Study, arguments: list[str]) -> argparse.Namespace:
    """What decides what the defaults of the options are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", nargs="?", default=_folder(kind))
    parser.add_argument("--preset", nargs="?")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_known_args(arguments)[0]


def _folder(kind: Study) -> str:
    return f"runs/{kind.name}"


def _saved(first: argparse.Namespace) -> dict[str, Any]:
    """The options of the study that is to be resumed."""
    file = Path(first.out or "") / _FILE
    return read_config(file) if first.resume and os.path.isfile(file) else {}


def _as_arguments(saved: Mapping[str, Any], of_many_values: list[str]) -> Iterator[str]:
    """The options of a file as if they had been given, so that they are checked in the same way."""
    for name, value in saved.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{option}" if value else f"--no-{option}"
        elif isinstance(value, list) and name in of_many_values:
            yield from (f"--{option}", *map(str, value))
        else:
            yield f"--{option}={value if isinstance(value, str) else json.dumps(value)}"


def _parser(kind: Study, preset: str) -> OptionParser:
    parser = OptionParser(
        prog=f"bayes-share study {kind.name}",
        usage=f"bayes-share study {kind.name} [OPTIONS]",
        description=kind.description,
        allow_abbrev=False,
    )
    own = parser.add_argument_group("the study")
    own.add_argument(
        "--out", type=str, default=_folder(kind), help="folder of runs, tables and pictures; must not exist yet"
    )
    own.add_argument("--resume", action="store_true", help="go on with the study in --out, or add to it")
    for option in kind.grid(preset):
        own.add_argument(
            f"--{option.name}", type=option.kind, nargs="*", default=list(option.default), help=option.help
        )
    own.add_argument("--seeds", type=int, default=5, help="how many seeds; they count from 0")
    summaries = "; ".join(f"{name!r}: {one.summary}" for name, one in kind.presets.items())
    own.add_argument("--preset", type=str, default=preset, help=f"settings of all runs. {summaries}")
    own.add_argument("--jobs", type=int, default=2, help="runs at a time, which share the machine's cores")
    own.add_argument(
        "--ray",
        type=str,
        default=None,
        metavar="ADDRESS",
        help="address of a Ray cluster (or auto) to run on, in place of --jobs; all its nodes must see --out, and the "
        "data, under one path, so that the runs of a node that is lost go on elsewhere; needs the extra 'ray'",
    )
    own.add_argument(
        "--progress", action=ActionYesNo(no_prefix="no-"), default=True, help="whether a progress bar is shown"
    )
    for group in kind.groups:
        add_options(parser, group.title, group.kind, kind.presets[preset].options, group.names)
    return parser
