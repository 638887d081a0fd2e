"""``bayes-share study``: the command line of the studies."""

import os
from argparse import SUPPRESS, Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bayes_share.data import Data
from bayes_share.data.load import short_name
from bayes_share.errors import RunError, unknown
from bayes_share.io.files import remove_left_beside, write_atomically
from bayes_share.io.folder_lock import alone_in
from bayes_share.io.terminal import printable, show
from bayes_share.options.parser import OptionParser, add_option, add_options, first_look, listing
from bayes_share.options.values import dump_yaml, option_types, read_values
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import read_config
from bayes_share.runs.identity import check_data
from bayes_share.runs.output_paths import STUDY_FILES
from bayes_share.runs.run_folder import RunFolder, check_folder_of_runs, noted_identity
from bayes_share.study.cluster import run_all_on_ray
from bayes_share.study.definition import Study, check_settings
from bayes_share.study.registry import STUDIES
from bayes_share.study.runner import check_runs, run_all

_OVERVIEW = """Train many independent runs in one folder, and write tables and figures of their scores over seeds.

studies:
{studies}

'bayes-share study STUDY --help' explains a study."""

_SHOWN_FAILURES = 3
_FILE = "study.yaml"


def parser(words: Sequence[str]) -> OptionParser:
    """Return the parser for the arguments of ``study``, whose options depend on the study.

    Raises:
        InputError: if the study or preset is unknown, or the saved options of a resumed study are invalid.
    """
    if not words or words[0] in ("-h", "--help"):
        studies = listing({name: one.title for name, one in STUDIES.items()})
        return OptionParser(usage="bayes-share study STUDY [OPTIONS]", description=_OVERVIEW.format(studies=studies))
    if words[0] not in STUDIES:
        raise unknown("study", words[0], STUDIES)
    kind = STUDIES[words[0]]
    first = first_look(words, "--out", "--preset")
    saved = _saved_options(kind, Path(first.out or _default_folder(kind))) if first.resume else {}
    preset = str(first.preset or saved.get("preset", "digits"))
    if preset not in kind.presets:
        raise unknown("preset of the study", preset, kind.presets)
    made = _parser(kind, preset)
    made.set_defaults(saved)
    return made


def run(options: Namespace) -> None:
    """Run the command.

    Raises:
        InputError: if an option is invalid; no run is started.
        RunError: if runs failed. All other runs are finished, and are in the tables.
    """
    if "study" not in options:
        return parser([]).print_help()
    kind, given = STUDIES[options.study], vars(options)
    grid = [option.name for option in kind.grid(options.preset)]
    out = Path(options.out)
    check_folder_of_runs(out, options.resume)
    of_runs = {name: given[name] for name in kind.run_options}
    values = {name: given[name] for name in grid}
    configs = kind.configs(options.preset, values, options.seeds, of_runs, out / "runs")
    data = check_settings(configs, kind.needs)
    asked = {name: given[name] for name in (*grid, "seeds", "preset", *kind.run_options)}
    with alone_in(out):
        remove_left_beside(out, lambda name: name in STUDY_FILES)
        check_folder_of_runs(out, options.resume)  # again, since another process may have used the folder until now
        by_name = {trial.name: config for trial, config in configs.items()}
        check_runs(by_name, out / "runs", options.jobs, options.processes)
        _check_data([RunFolder(out / "runs" / name) for name in by_name], data)
        _run(kind, configs, out, asked, given)
    return None


def _check_data(runs: Iterable[RunFolder], data: Data) -> None:
    """Check that finished runs were trained on the same data as the others, since all are in one table."""
    for folder in runs:
        if folder.summary.is_file():
            check_data(noted_identity(folder), data, folder.path)


def _run(
    kind: Study, configs: Mapping[Any, RunConfig], out: Path, asked: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    write_atomically(out / _FILE, dump_yaml(plain).encode())
    runs, by_name = out / "runs", {trial.name: config for trial, config in configs.items()}
    needs = {trial.name: kind.needs(trial) for trial in configs}
    if options["ray"] is None:
        failed = run_all(by_name, runs, options["jobs"], options["progress"], needs, options["processes"])
    else:
        failed = run_all_on_ray(by_name, runs, options["ray"], options["progress"], needs, options["processes"])
    finished = {trial: RunFolder(runs / trial.name) for trial in configs if trial.name not in failed}
    if finished:
        summary = kind.summary(finished, asked)
        summary.write(out, f"{asked['model']} on {short_name(asked['data'])}")
        show(summary.tables())
        show(f"tables and pictures: {printable(out)}; each run: {printable(runs)}")
    if failed:
        raise RunError(_failures(failed, len(configs)))


def _failures(failed: Mapping[str, str], count: int) -> str:
    lines = [f"{name} ({reason})" for name, reason in failed.items()]
    more = f" and {len(lines) - _SHOWN_FAILURES} more" if len(lines) > _SHOWN_FAILURES else ""
    shown = "; ".join(lines[:_SHOWN_FAILURES])
    return f"{len(failed)} of {count} runs failed, and the others are finished; --resume retries them: {shown}{more}"


def _default_folder(kind: Study) -> str:
    return f"runs/{kind.name}"


def _saved_options(kind: Study, out: Path) -> dict[str, Any]:
    """Return the saved options of the study to resume, converted to their types; empty if there is no study yet."""
    file = out / _FILE
    if not os.path.lexists(file):
        return {}
    values = read_config(file)
    lists: Mapping[str, Any] = {
        option.name: tuple[option.kind, ...]  # type: ignore[name-defined]
        for option in kind.grid("digits")
    }
    of_runs = {name: hint for group in kind.groups for name, hint in option_types(group.kind).items()}
    hints = {**lists, "seeds": int, "preset": str, **{name: of_runs[name] for name in kind.run_options}}
    return {
        name: list(value) if name in lists else value for name, value in read_values(values, hints, str(file)).items()
    }


def _parser(kind: Study, preset: str) -> OptionParser:
    prog = f"bayes-share study {kind.name}"
    made = OptionParser(prog=prog, usage=f"{prog} [OPTIONS]", description=kind.description)
    made.add_argument("study", type=str, help=SUPPRESS)
    own = made.add_argument_group("the study")
    add_option(
        own,
        "out",
        str,
        _default_folder(kind),
        "folder for runs, tables and figures; must not exist, unless with --resume",
    )
    own.add_argument("--resume", action="store_true", help="resume the study in --out, or extend it")
    for option in kind.grid(preset):
        add_option(own, option.name, option.kind, list(option.default), option.help, nargs="*")
    add_option(
        own, "seeds", int, kind.presets[preset].seeds, "number of runs of each setting, with the seeds 0, 1, ..."
    )
    summaries = "; ".join(f"{name!r}: {one.summary}" for name, one in kind.presets.items())
    add_option(own, "preset", str, preset, f"settings for all runs. {summaries}")
    add_option(
        own,
        "jobs",
        int,
        2,
        "maximum number of runs at a time, which share the cores and the GPU of the machine; fewer if memory runs out",
    )
    add_option(own, "processes", int, 1, "number of processes that share the work of each run, as under torchrun")
    ray = (
        "address of a Ray cluster to run on instead of --jobs, or auto; requires the extra 'ray'. --out and the data "
        "must have the same paths on all nodes, so that runs of a lost node resume on another"
    )
    add_option(own, "ray", str, None, ray, metavar="ADDRESS")
    add_option(own, "progress", bool, True, "whether to show a progress bar")
    for group in kind.groups:
        add_options(made, group.title, group.kind, kind.presets[preset].options, group.names)
    return made
