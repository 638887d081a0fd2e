"""Compare methods on tables. Results are written as they are computed, and existing ones are not computed again."""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from bayes_share.cli import main as bayes_share
from bayes_share.data.tables.load import TableData, load_table
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.numbers import number_scores
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.reading_predictions import read_predictions
from bayes_share.evaluation.scores import score
from bayes_share.runs.run_folder import RunFolder, read_summary
from bayes_share.tasks import NoiseChoice, TableSpec
from benchmarks.report import table
from benchmarks.tables.peers import tabm, trees_of_classes, trees_of_numbers
from benchmarks.tables.recipe import Recipe
from benchmarks.tables.sets import SETS, write_sets

METHODS = ("our recipe", "tabm", "deep ensemble", "trees")
SHOWN = ("rmse", "accuracy", "nll", "crps", "ece", "coverage", "seconds", "parameters")
Scores = dict[str, float]


def scores_of(found: Predictions | NumberPredictions) -> Scores:
    """Return the scores of predictions."""
    if isinstance(found, NumberPredictions):
        scores = number_scores(found.predictive, found.targets, resamples=2)
        return {name: scores[name].value for name in ("rmse", "nll", "crps", "coverage")}
    scores = score(found)
    return {"accuracy": 100 * scores.accuracy, "nll": scores.nll, "ece": scores.ece}


def of_run(words: Sequence[str], folder: Path) -> Scores:
    """Run ``bayes-share fit`` with some options, and return its scores."""
    if bayes_share(["fit", *words, "--out", str(folder), "--resume"]):
        raise SystemExit(f"bayes-share fit {' '.join(words)} failed")
    found = scores_of(read_predictions(RunFolder(folder).predictions("test")))
    return {**found, "parameters": read_summary(RunFolder(folder))["parameters"]}


def of_tabm(data: TableData, recipe: Recipe, seed: int) -> Scores:
    """Train TabM with its authors' package, and return its scores."""
    spec, noise = TableSpec(data.encoder, len(data.train), ()), NoiseChoice(beta=0.0)
    is_real = not data.encoder.target.class_names
    likelihood = spec.likelihood(NoiseChoice(beta=recipe.beta) if is_real else noise)
    predicted, parameters = tabm(data, recipe, likelihood, spec._num_outputs(noise), seed)
    return {**scores_of(predicted(data.test)), "parameters": parameters}


def of_trees(data: TableData, seed: int) -> Scores:
    """Train gradient boosting, and return its scores."""
    if data.encoder.target.class_names:
        return scores_of(trees_of_classes(data, seed))
    return trees_of_numbers(data, seed)


def cell(method: str, name: str, path: Path, recipe: Recipe, seed: int, folder: Path) -> Scores:
    """Return the scores and the CPU seconds of a method on a data set; the seed determines split and initialisation."""
    data = load_table(path, SETS[name][1], "normal" if "normal" in SETS[name] else None, split_seed=seed)
    words = ["--data", f"csv:{path}", *SETS[name], "--split-seed", str(seed), "--seed", str(seed), *recipe.options()]
    words += [] if data.encoder.target.class_names else ["--noise-beta", str(recipe.beta)]
    init = ["--init", "first.r=standard_normal,head=fresh,*=ones", "--own", "[head]"]
    several = ["--networks", str(recipe.networks)]
    out = folder / f"{method}-{name}-{seed}".replace(" ", "-")
    ways: dict[str, Callable[[], Scores]] = {
        "our recipe": lambda: of_run(["map", *words, "--ensemble-size", str(recipe.members), *init], out),
        "deep ensemble": lambda: of_run(["deep-ensemble", "--of", "map", *several, *words], out),
        "tabm": lambda: of_tabm(data, recipe, seed),
        "trees": lambda: of_trees(data, seed),
    }
    started = time.process_time()
    found = ways[method]()
    return {**found, "seconds": time.process_time() - started}


def shown(lines: Sequence[dict[str, Any]]) -> str:
    """Return tables of means and standard errors over seeds, and paired differences of our recipe and the package."""
    parts = []
    for name in SETS:
        of = {
            method: {line["seed"]: line["scores"] for line in lines if (line["set"], line["method"]) == (name, method)}
            for method in METHODS
        }
        rows = {method: list(scores.values()) for method, scores in of.items() if scores}
        if both := sorted(of["our recipe"].keys() & of["tabm"].keys()):
            pairs = [(of["our recipe"][seed], of["tabm"][seed]) for seed in both]
            rows["our recipe - tabm"] = [{key: ours[key] - theirs[key] for key in theirs} for ours, theirs in pairs]
        keys = [key for key in SHOWN if any(key in scores for several in rows.values() for scores in several)]
        body = [
            [method, *(_cell([s[key] for s in several if key in s]) for key in keys)]
            for method, several in rows.items()
        ]
        if body:
            parts.append(f"{name}, {max(map(len, rows.values()))} seeds\n\n{table(['method', *keys], body)}")
    return "\n\n".join(parts)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    digits = 0 if abs(mean(values)) >= 1000 else 4
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    return f"{mean(values):,.{digits}f} ± {stdev(values) / math.sqrt(len(values)):,.{digits}f}"


def main() -> None:
    """Compute missing results, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="folder of the results; existing ones are kept")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--quick", action="store_true", help="one seed with few epochs and rows, to check that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp()) if options.out is None else options.out
    folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(epochs=2, width=16, members=4) if options.quick else Recipe()
    paths = write_sets(folder, 600) if options.quick else write_sets(folder)
    results = folder / "results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    there = {(line["set"], line["method"], line["seed"]) for line in lines}
    for seed in range(1 if options.quick else options.seeds):
        for name in options.sets:
            for method in options.methods:
                if (name, method, seed) in there:
                    continue
                found = cell(method, name, paths[name], recipe, seed, folder)
                lines.append({"set": name, "method": method, "seed": seed, "scores": found})
                with results.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
    print(shown(lines))


if __name__ == "__main__":
    main()
