"""Time and memory of a step of each algorithm, relative to AdamW on the same network.

Run as ``python -m benchmarks.inference``, from the root of a clone.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bayes_share.inference import IVON, MAP, SVI, SWAG, Batch, DeepEnsemble, Inference, MCDropout
from bayes_share.inference.step.drivers import step
from bayes_share.io.files import write_atomically
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.models.program import pyro_model
from bayes_share.priors import Rules
from bayes_share.sharing import ensemble
from benchmarks.measure import Spread, peak_bytes, time_ratios
from benchmarks.report import about, table

BATCH_SIZES = (16, 128)
NUM_DATA, NUM_STEPS, MEMBERS = 50_000, 10_000, 4
_ADAMW = MAP(optimizer="adamw", learning_rate=1e-3)

ON_A_NETWORK: dict[str, Inference[Any]] = {
    "AdamW": _ADAMW,
    "IVON": IVON(),
    "SVI, all weights": SVI(),
    "SWAG": SWAG(optimizer="adamw", learning_rate=1e-3, swa_start=0.0),
    "MC dropout": MCDropout(optimizer="adamw", learning_rate=1e-3),
    "deep ensemble of 4": DeepEnsemble(_ADAMW, 4),
}
"""Algorithms on a single network, relative to the first."""

ON_AN_ENSEMBLE: dict[str, Inference[Any]] = {
    "BatchEnsemble of 4, AdamW": _ADAMW,
    "BatchEnsemble of 4, IVON": IVON(),
    "Rank-1 SVI of 4": SVI(weight_decay=1e-4),
}
"""Algorithms on a BatchEnsemble, relative to the first, with the same number of images."""

AIMS = {
    "IVON": (1.10, 1.3),
    "SVI, all weights": (1.30, 1.3),
    "SWAG": (None, 1.3),
    "MC dropout": (None, 1.3),
    "Rank-1 SVI of 4": (1.25, 1.3),
}
"""The aims for the relative time, and for the relative peak memory at batch size 128."""


def build(model: str, is_ensemble: bool, device: torch.device, factors_alone: bool = False) -> Model:
    """Build a network for CIFAR-10, or an ensemble of it, optionally with a posterior over the factors alone."""
    torch.manual_seed(0)
    network = build_network(model, num_classes=10, in_channels=3, image_size=(32, 32))
    if not is_ensemble:
        return Model(network).to(device)
    points: Rules = {lambda site: site.kind != "factor": None} if factors_alone else {}
    return Model(ensemble(network, MEMBERS, init="normal", strategy="tile"), priors=points).to(device)


def steps(model: str, batch: Batch, is_ensemble: bool, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return a function that takes a step, for each algorithm."""
    found: dict[str, Callable[[], object]] = {}
    for name, algorithm in (ON_AN_ENSEMBLE if is_ensemble else ON_A_NETWORK).items():
        is_svi = isinstance(algorithm, SVI)  # for other algorithms, a rule would replace weight decay
        state = algorithm.init(partial(build, model, is_ensemble, device, is_svi), NUM_DATA, NUM_STEPS)
        found[name] = lambda algorithm=algorithm, state=state: step(algorithm, state, batch)
    if not is_ensemble:
        found["Pyro alone (AutoNormal)"] = pyro_alone(build(model, is_ensemble, device), batch)
    return found


def pyro_alone(model: Model, batch: Batch) -> Callable[[], object]:
    """Return a function that takes a step with Pyro's AutoNormal, Trace_ELBO and SVI, for the same model and priors."""
    from pyro import clear_param_store
    from pyro.infer import SVI as PyroSVI
    from pyro.infer import Trace_ELBO
    from pyro.infer.autoguide import AutoNormal
    from pyro.optim import Adam

    clear_param_store()
    program = pyro_model(model.train(), NUM_DATA)
    svi = PyroSVI(program, AutoNormal(program, init_scale=0.02), Adam({"lr": 1e-3}), Trace_ELBO())
    return lambda: svi.step(*batch)


def measure(model: str, batch_size: int, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Measure the time and the peak memory of every algorithm's step relative to AdamW, at one batch size."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(batch_size, 3, 32, 32, generator=source).to(device)
    batch = (x, torch.randint(10, (batch_size,), generator=source).to(device))
    rows = []
    for is_ensemble in (False, True):
        runs = steps(model, batch, is_ensemble, device)
        base = next(iter(runs))
        for run in runs.values():  # an optimizer allocates its state in the first step
            run()
        ratios, seconds = time_ratios(runs, base, repeats, device)
        peaks = {name: peak_bytes(run, device) for name, run in runs.items()}
        for name in runs:
            rows.append(
                {
                    "algorithm": name,
                    "batch_size": batch_size,
                    "time": ratios.get(name, Spread(1.0, 1.0, 1.0)),
                    "memory": peaks[name] / peaks[base],
                    "milliseconds": 1000 * seconds if name == base else None,
                }
            )
    return rows


def tables(results: dict[str, Any]) -> str:
    """Return the origin of the results and a table with the aims, in Markdown."""
    origin = results["about"]
    header = ["algorithm", "batch", "time over AdamW's", "aim", "peak memory over AdamW's", "aim"]
    lines = []
    for row in results["rows"]:
        time_aim, memory_aim = AIMS.get(row["algorithm"], (None, None))
        base = f" ({row['milliseconds']:.0f} ms)" if row["milliseconds"] is not None else ""
        lines.append(
            [
                row["algorithm"],
                str(row["batch_size"]),
                f"1{base}" if base else str(Spread(*row["time"])),
                "" if time_aim is None else f"{time_aim:.2f}",
                f"{row['memory']:.2f}",
                "" if memory_aim is None or row["batch_size"] < 128 else f"{memory_aim:.1f}",
            ]
        )
    title = f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`"
    return f"{title}\n\n{table(header, lines)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all algorithms at both batch sizes, or print the table of a file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads on a CPU (default: torch's)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (default: 15)")
    parser.add_argument("--model", default="resnet20", help="network (default: resnet20)")
    parser.add_argument("--out", type=Path, help="a JSON file, rewritten after each batch size")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the table of this file; measure nothing")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(tables(json.loads(options.table.read_text())))
        return
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    results: dict[str, Any] = {
        "about": about(shlex.join(["python", "-m", "benchmarks.inference", *arguments]), device),
        "rows": [],
    }
    for batch_size in BATCH_SIZES:
        results["rows"] += measure(options.model, batch_size, options.repeats, device)
        if options.out is not None:
            write_atomically(options.out, json.dumps(results, indent=1).encode())
    print(tables(results))


if __name__ == "__main__":
    main()
