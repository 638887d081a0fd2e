"""Run the study of ensembles in parts: each finished run adds a line to a file, and tables are made from that file.

``bayes-share study ensembles`` keeps every run's folder. The presets for CIFAR-10 at 8 x 8 pixels take long, and run
folders are too large to copy between machines, unlike the lines. From the root of a clone, in as many processes as
there are cores::

    python -m benchmarks.ensembles run cifar8-2500 --rows core --seeds 0 1 2 --out runs/a
    python -m benchmarks.ensembles table cifar8-2500 --out tables/a

The lines are in ``benchmarks/ensembles/PRESET.jsonl``; runs with a line are not repeated.
"""

import argparse
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bayes_share.runs.run import run
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study.ensemble_costs import Costs
from bayes_share.study.ensemble_results import Outcome, pooled_scores, read_outcomes
from bayes_share.study.ensemble_rows import ROWS
from bayes_share.study.ensemble_summary import EnsembleSummary, have_predicted
from bayes_share.study.ensembles import ENSEMBLE_PRESETS, EnsembleStudy, EnsembleTrial
from bayes_share.study.registry import ensemble_shifted_sets

POOLED = (8, 16)
"""Sizes of deep ensembles that are pooled from the networks of several seeds."""


def lines_of(preset: str) -> Path:
    """Return the file of a preset's lines."""
    return Path(__file__).parent / f"{preset}.jsonl"


def run_part(options: argparse.Namespace) -> None:
    """Make the runs that have no line yet, and add their lines."""
    torch.set_num_threads(1)
    file, given = lines_of(options.preset), dict(pair.split("=", 1) for pair in options.set)
    study = EnsembleStudy(options.rows, max(options.seeds) + 1, options.preset, {**given, "channels_last": True})
    ood = options.ood or ENSEMBLE_PRESETS[options.preset].ood
    shifted_sets = ensemble_shifted_sets(ood, ENSEMBLE_PRESETS[options.preset].corruptions)
    runs = Path(options.out)
    for trial, config in study.configs(runs).items():
        if trial.seed not in options.seeds or _has_line(file, trial):
            continue
        folder = RunFolder(runs / trial.name)
        try:
            run(config, folder.path, resume=True, progress=False)
            have_predicted([folder], shifted_sets)
        except Exception as error:  # the other runs go on
            print(f"{trial.name}: {type(error).__name__}: {error}", flush=True)
            continue
        before = {} if trial.teacher is None else {trial.teacher: RunFolder(runs / trial.teacher.name)}
        found = read_outcomes({**before, trial: folder})
        _add(file, [_line(one) for one in found if one.trial not in before])
        print(trial.name, {name: round(value, 4) for name, value in found[-1].scores.items()}, flush=True)


def pool(options: argparse.Namespace) -> None:
    """Add the scores of deep ensembles pooled from several seeds, whose run folders must all be present."""
    runs = Path(options.out)
    deep = {seed: RunFolder(runs / EnsembleTrial("deep-ensemble", seed).name) for seed in options.seeds}
    lines = [
        {"pooled": size, "seed": seed, "scores": scores}
        for size in POOLED
        for seed, scores in pooled_scores(deep, size).items()
    ]
    _add(lines_of(options.preset), lines)


def summary_of(lines: Iterable[Mapping[str, Any]]) -> EnsembleSummary:
    """Make the study's summary from lines."""
    outcomes, pooled = [], {size: {} for size in POOLED}
    for line in lines:
        if "pooled" in line:
            pooled[line["pooled"]][line["seed"]] = line["scores"]
        else:
            trial = EnsembleTrial(line["row"], line["seed"])
            outcomes.append(Outcome(trial, line["scores"], Costs(**line["costs"])))
    return EnsembleSummary(outcomes, pooled)


def show(options: argparse.Namespace) -> None:
    """Print the tables, and write them and the figures into a folder."""
    summary = summary_of(read_lines(lines_of(options.preset)))
    print(summary.tables(markdown=True))
    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)
        summary.write(Path(options.out), options.preset)


def _line(one: Outcome) -> dict[str, Any]:
    made_by = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    return {**one.trial._asdict(), "scores": dict(one.scores), "costs": asdict(one.costs), "by": made_by}


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, or none if it does not exist."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _has_line(file: Path, trial: EnsembleTrial) -> bool:
    return any((line.get("row"), line["seed"]) == (trial.row, trial.seed) for line in read_lines(file))


def _add(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append lines in a single write, so that lines of other processes are not interleaved."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with file.open("a") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("part", choices=["run", "pool", "table"])
    parser.add_argument("preset", choices=list(ENSEMBLE_PRESETS))
    parser.add_argument(
        "--rows", nargs="+", default=["core"], help=f"rows of the table: core, all, or any of {', '.join(ROWS)}"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="seeds (default: 0)")
    parser.add_argument("--ood", nargs="*", help="out-of-distribution sets that replace the preset's")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="OPTION=VALUE", help="options of every run, such as data=npz:FOLDER"
    )
    parser.add_argument("--out", help="folder of runs, or of tables")
    options = parser.parse_args()
    {"run": run_part, "pool": pool, "table": show}[options.part](options)


if __name__ == "__main__":
    main()
