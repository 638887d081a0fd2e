"""Validation NLL of the runs of a study, by which recipes choose their initialisation.

From the folder of the runs, after ``bayes-share study ensembles`` or ``python -m benchmarks.ensembles run``::

    python -m benchmarks.ensembles.validation runs/a

The temperature of each half of the validation images is fitted to the other half. Test images are not used.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

import torch

from bayes_share.evaluation import Predictions, calibrate, score
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.study.ensemble_rows import ROWS
from benchmarks.report import table


def main() -> None:
    """Print the table of the runs in a folder."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ensembles.validation",
        description="Print the validation NLL of the runs of a study before and after temperature scaling.",
    )
    parser.add_argument("runs", type=Path, help="folder with a folder ROW-seed-SEED for each run")
    runs = parser.parse_args().runs
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for folder in runs.glob("*-seed-*"):
        if (folder / "summary.json").is_file():
            row = re.sub(r"-seed-\d+$", "", folder.name)
            found[row].append(cross_scaled_nll(read_class_predictions(folder / "predictions" / "validation.npz")))
    if not found:
        parser.error(f"{runs} has no finished runs named ROW-seed-SEED")
    header = ["row", "validation NLL", "scaled", "seeds"]
    rows = [
        [ROWS[name].label, *map(_shown, zip(*found[name], strict=True)), str(len(found[name]))]
        for name in ROWS
        if name in found
    ]
    print(table(header, rows))


def cross_scaled_nll(predictions: Predictions) -> tuple[float, float]:
    """Return the NLL of predictions, and their NLL with the temperature of the other half of the examples."""
    numbers = torch.arange(len(predictions.labels))
    halves = [predictions.at(numbers[start::2]) for start in (0, 1)]
    nll = [score(calibrate("temperature", fitted, other)).nll for other, fitted in (halves, halves[::-1])]
    sizes = [len(half.labels) for half in halves]
    return score(predictions).nll, sum(one * size for one, size in zip(nll, sizes, strict=True)) / sum(sizes)


def _shown(values: tuple[float, ...]) -> str:
    """Return the mean, with the standard error if there are several values."""
    mean = torch.tensor(values, dtype=torch.float64)
    error = f" ± {mean.std() / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{mean.mean():.3f}{error}"


if __name__ == "__main__":
    main()
