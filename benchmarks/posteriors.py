"""Compare the predictions of every algorithm on digits with those of NUTS, for a small perceptron and the same prior.

Run as ``python -m benchmarks.posteriors``, from the root of a clone.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayes_share.data import Data, load_data
from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Inference,
    LastLayerLaplace,
    MCDropout,
    Training,
    batches_of,
)
from bayes_share.io.files import write_atomically
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.models.mlp import mlp
from bayes_share.models.model import Model
from benchmarks.report import about, table

WIDTHS = (32,)
EPOCHS, BATCH_SIZE, DRAWS = 100, 64, 100
REFERENCE = "NUTS, 2 chains"

ALGORITHMS: dict[str, tuple[Inference[Any], int, int | None]] = {
    "MAP": (MAP(), EPOCHS, BATCH_SIZE),
    "MC dropout": (MCDropout(), EPOCHS, BATCH_SIZE),
    "SWAG": (SWAG(), EPOCHS, BATCH_SIZE),
    "last-layer Laplace": (LastLayerLaplace(), EPOCHS, BATCH_SIZE),
    "deep ensemble of 4": (DeepEnsemble(MAP(), 4), EPOCHS, BATCH_SIZE),
    "IVON": (IVON(), EPOCHS, BATCH_SIZE),
    "SVI, independent normals": (SVI(), EPOCHS, BATCH_SIZE),
    "SVI, low rank": (SVI(guide="low-rank"), EPOCHS, BATCH_SIZE),
    "SGHMC": (SGHMC(keep=50), 4 * EPOCHS, BATCH_SIZE),
    REFERENCE: (NUTS(chains=2, keep=100), 400, None),
}
"""Each algorithm with its epochs and batch size. For NUTS, an epoch is a transition. SGHMC takes four times as many."""


def predictions(name: str, data: Data, seed: int) -> tuple[Tensor, float]:
    """Train, and return the log predictive probabilities of the test images, ``[image, class]``, and the seconds."""
    algorithm, epochs, batch_size = ALGORITHMS[name]

    def build() -> Model:
        return Model(mlp(WIDTHS, num_classes=10, in_channels=1, image_size=(8, 8)))

    started = time.perf_counter()
    training = Training(algorithm, build, batches_of(data, batch_size), epochs, seed)
    for _ in training.steps():
        pass
    log_probs = mixture_log_probs(training.predict(data.test, DRAWS))
    return log_probs, time.perf_counter() - started


def compare(seeds: int, names: Sequence[str], out: Path | None, origin: dict[str, str]) -> dict[str, Any]:
    """Measure accuracy, NLL, and the divergence of the predictions from those of NUTS, for each algorithm and seed."""
    data = load_data("digits")
    labels = data.test.labels
    results: dict[str, Any] = {"about": origin, "rows": []}
    for seed in range(seeds):
        gold: Tensor | None = None
        for name in names:
            log_probs, seconds = predictions(name, data, seed)
            gold = log_probs if gold is None else gold
            results["rows"].append(
                {
                    "algorithm": name,
                    "seed": seed,
                    "accuracy": (log_probs.argmax(-1) == labels).double().mean().item(),
                    "nll": -log_probs[torch.arange(len(labels)), labels].mean().item(),
                    "divergence": (gold.exp() * (gold - log_probs)).sum(-1).mean().item(),
                    "seconds": seconds,
                }
            )
            print(results["rows"][-1], flush=True)
            if out is not None:
                write_atomically(out, json.dumps(results, indent=1).encode())
    return results


def tables(results: dict[str, Any]) -> str:
    """Return a Markdown table with means and standard errors over seeds, one line per algorithm."""
    origin, rows = results["about"], results["rows"]
    header = ["algorithm", "accuracy, %", "NLL", "divergence from NUTS", "seconds"]
    lines = []
    for name in dict.fromkeys(row["algorithm"] for row in rows):
        own = [row for row in rows if row["algorithm"] == name]
        cells = [("accuracy", 100, 2), ("nll", 1, 3), ("divergence", 1, 3)]
        shown = [_mean(torch.tensor([scale * row[key] for row in own]), digits) for key, scale, digits in cells]
        lines.append([name, *shown, f"{sum(row['seconds'] for row in own) / len(own):.0f}"])
    title = f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`"
    return f"{title}\n\n{table(header, lines)}"


def _mean(values: Tensor, digits: int) -> str:
    if len(values) == 1:
        return f"{values.item():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std() / len(values) ** 0.5:.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all algorithms, NUTS first, or print the table of a file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posteriors", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each algorithm (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default: 1)")
    parser.add_argument("--out", type=Path, help="a JSON file, rewritten after each run")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the table of this file; run nothing")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(tables(json.loads(options.table.read_text())))
        return
    torch.set_num_threads(options.threads)
    command = shlex.join(["python", "-m", "benchmarks.posteriors", *arguments])
    names = [REFERENCE, *(name for name in ALGORITHMS if name != REFERENCE)]
    print(f"\n{tables(compare(options.seeds, names, options.out, about(command, torch.device('cpu'))))}")


if __name__ == "__main__":
    main()
