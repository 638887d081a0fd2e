"""Time and memory of a training step of networks with shared layers or groups, relative to the plain network.

Run as ``python -m benchmarks.sharing``, from the root of a clone.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.io.files import write_atomically
from bayes_share.models.networks import build_network
from bayes_share.sharing import ledger, share_groups, share_layers
from benchmarks.measure import Spread, peak_bytes, time_ratios
from benchmarks.report import about, table

SHARED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "layers, rank-1": share_layers,
    "layers, one norm": lambda net: share_layers(net, norm="shared"),
    "layers, no factors": lambda net: share_layers(net, factors="none"),
    "layers, 4 templates": lambda net: share_layers(net, templates=4),
    "2 groups": lambda net: share_groups(net, 2, indivisible="skip"),
    "layers and 2 groups": lambda net: share_groups(share_layers(net), 2, indivisible="skip"),
}
"""Ways of sharing, relative to the plain network. The aim for the first is a time of at most 1.10."""


class Training:
    """A callable that takes a training step on one batch.

    Args:
        network: the network to train.
        x: the images.
        y: the labels.
    """

    def __init__(self, network: nn.Module, x: Tensor, y: Tensor) -> None:
        self.network, self.x, self.y = network.to(x.device).train(), x, y
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def __call__(self) -> None:
        """Take a step."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.network(self.x), self.y).backward()
        self.optimizer.step()


def measure(model: str, batch_size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Measure the time and peak memory of a step relative to the plain network, and count parameters."""
    torch.manual_seed(0)
    x = torch.randn(batch_size, 3, 32, 32, device=device)
    y = torch.randint(10, (batch_size,), device=device)
    plain = build_network(model, num_classes=10, in_channels=3, image_size=(32, 32))
    networks = {"plain": plain} | {name: share(plain) for name, share in SHARED.items()}
    runs: dict[str, Callable[[], object]] = {name: Training(network, x, y) for name, network in networks.items()}
    timed = {**runs, "layers, rank-1, by activations": Training(share_layers(plain, way="activations"), x, y)}
    ratios, seconds = time_ratios(timed, "plain", repeats, device)
    peaks = {name: peak_bytes(run, device) for name, run in timed.items()}
    stored = {name: ledger(network).stored for name, network in networks.items()}
    return {
        "model": model,
        "batch_size": batch_size,
        "rounds": repeats,
        "plain_seconds": seconds,
        "training": ratios,
        "peak": {name: peak / peaks["plain"] for name, peak in peaks.items()},
        "stored": stored,
    }


def as_table(row: dict[str, Any]) -> str:
    """Return the results of one network as a Markdown table, with a line for each way of sharing."""
    lines = []
    for name, ratio in row["training"].items():
        stored = row["stored"].get(name)
        size = "–" if stored is None else f"{stored:,}"
        lines.append([name, str(Spread(*ratio)), f"{row['peak'][name]:.2f}", size])
    title = (
        f"{row['model']}, {row['stored']['plain']:,} parameters, batch {row['batch_size']}: a step of the plain "
        f"network takes {row['plain_seconds'] * 1e3:.0f} ms ({row['rounds']} rounds)"
    )
    return f"{title}\n\n{table(['shared', 'time of a step', 'peak memory', 'parameters'], lines)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways of sharing on one network."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    origin = about(shlex.join(["python", "-m", "benchmarks.sharing", *arguments]), device)
    row = measure(options.model, options.batch_size, options.repeats, device)
    if options.out is not None:
        write_atomically(options.out, json.dumps({"about": origin, "row": row}, indent=1).encode())
    print(f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`\n\n{as_table(row)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharing", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads on a CPU (default: torch's)")
    parser.add_argument("--model", default="resnet56", help="network (default: resnet56)")
    parser.add_argument("--batch-size", type=int, default=128, help="images in a step (default: 128)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (default: 15)")
    parser.add_argument("--out", type=Path, help="a JSON file")
    return parser


if __name__ == "__main__":
    main()
