"""Time and memory of a training step of methods that make members differ, relative to the plain BatchEnsemble.

Run as ``python -m benchmarks.members``, from the root of a clone.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bayes_share.inference import MAP, Build, Distill, Inference
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.drivers import take_step
from bayes_share.io.files import write_atomically
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.sharing import ensemble
from benchmarks.measure import Spread, peak_bytes, time_ratios
from benchmarks.report import about, table

CLASSES = 10


@dataclass(frozen=True)
class Setting:
    """The setting of all rows.

    Args:
        model: the name of the network.
        members: the ensemble size.
        size: height and width of the images in pixels.
    """

    model: str
    members: int
    size: int

    def network(self) -> nn.Module:
        """Build the network to convert."""
        return build_network(self.model, num_classes=CLASSES, in_channels=3, image_size=(self.size, self.size))

    def ensemble(self, **options: Any) -> Build:
        """Return a function that builds an ensemble with some options of `ensemble`."""
        example = torch.zeros(2, 3, self.size, self.size)
        options = {"init": "random_sign", "example": example, **options}
        return lambda: Model(ensemble(self.network(), self.members, **options))


Row = Callable[[Setting], tuple[Inference[Any], Build]]
"""Returns an algorithm, and a function that builds the model to train."""


def distilled(setting: Setting, perturbation: Any) -> tuple[Inference[Any], Build]:
    """Return a student distilled from a deep ensemble with as many networks as members."""
    teachers = [setting.network() for _ in range(setting.members)]
    return Distill(perturbation=perturbation).taught_by(teachers), setting.ensemble()


ROWS: Mapping[str, Row] = {
    "BatchEnsemble": lambda setting: (MAP(), setting.ensemble()),
    "fixed signs": lambda setting: (MAP(), setting.ensemble(init="fixed_sign")),
    "factor_rank 4": lambda setting: (MAP(), setting.ensemble(factor_rank=4)),
    "additive, rank 4": lambda setting: (MAP(), setting.ensemble(init="normal", factor_form="additive", factor_rank=4)),
    "own norms": lambda setting: (MAP(), setting.ensemble(own=("norms",))),
    "own norms and head": lambda setting: (MAP(), setting.ensemble(own=("norms", "head"))),
    "distilled": lambda setting: distilled(setting, "confident_ods"),
    "distilled, not perturbed": lambda setting: distilled(setting, "none"),
}
"""The measured methods, relative to the first."""


def measure(setting: Setting, batch_size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Measure the time and peak memory of a step of each row, relative to the first."""
    torch.manual_seed(0)
    x = torch.randn(batch_size, 3, setting.size, setting.size, device=device)
    batch = Batch(x, torch.randint(CLASSES, (batch_size,), device=device))
    runs = {name: steps(*row(setting), batch) for name, row in ROWS.items()}
    base = next(iter(ROWS))
    ratios, seconds = time_ratios(runs, base, repeats, device)
    peaks = {name: peak_bytes(run, device) for name, run in runs.items()}
    return {
        "model": setting.model,
        "members": setting.members,
        "size": setting.size,
        "batch_size": batch_size,
        "rounds": repeats,
        "base_seconds": seconds,
        "base_bytes": peaks[base],
        "time": ratios,
        "peak": {name: peaks[name] / peaks[base] for name in ratios},
    }


def steps(algorithm: Inference[Any], build: Build, batch: Batch) -> Callable[[], object]:
    """Return a function that takes a step."""
    state = algorithm.init(lambda: build().to(batch.targets.device), 50_000, 10_000)
    return lambda: take_step(algorithm, state, batch, 0)


def as_table(found: dict[str, Any]) -> str:
    """Return the results as a Markdown table, with a line for each row but the first."""
    lines = [[name, str(Spread(*ratio)), f"{found['peak'][name]:.2f}"] for name, ratio in found["time"].items()]
    title = (
        f"{found['model']}, {found['members']} members, {found['size']} x {found['size']} pixels, batch "
        f"{found['batch_size']}: a step of the {next(iter(ROWS))} takes {found['base_seconds'] * 1e3:.0f} ms and "
        f"{found['base_bytes'] / 2**20:.0f} MiB ({found['rounds']} rounds)"
    )
    return f"{title}\n\n{table(['method', 'time of a step', 'peak memory'], lines)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all rows on one network."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    origin = about(shlex.join(["python", "-m", "benchmarks.members", *arguments]), device)
    setting = Setting(options.model, options.members, options.size)
    found = measure(setting, options.batch_size, options.repeats, device)
    if options.out is not None:
        write_atomically(options.out, json.dumps({"about": origin, "found": found}, indent=1).encode())
    print(f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`\n\n{as_table(found)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.members", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads on a CPU (default: torch's)")
    parser.add_argument("--model", default="resnet20", help="network (default: resnet20)")
    parser.add_argument("--members", type=int, default=4, help="ensemble size (default: 4)")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels (default: 32)")
    parser.add_argument("--batch-size", type=int, default=128, help="images in a step (default: 128)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (default: 15)")
    parser.add_argument("--out", type=Path, help="a JSON file")
    return parser


if __name__ == "__main__":
    main()
