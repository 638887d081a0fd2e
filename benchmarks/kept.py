"""Cached folded members: the cost of checking that no parameter has changed since they were folded.

    python -m benchmarks.kept --threads 1

For each network and batch size: the time of the comparison, and of a prediction with cached members, with members
folded each time, and in one pass over all members' rows. All are run in turn for several rounds. The minimum times are
shown, since other load can only add to them.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torchvision.models import resnet18

from bayes_share.models.networks import build_network
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.members import Ensemble
from benchmarks.report import about

MEMBERS = 4

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: build_network("resnet20", num_classes=10, in_channels=3, image_size=(32, 32)),
    "resnet18": lambda: resnet18(num_classes=10),
}


def least(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run all in turn, and return the minimum time of each in milliseconds."""
    found = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name] = min(found[name], 1e3 * (time.perf_counter() - start))
    return found


@torch.no_grad()
def measure(members: Ensemble, x: torch.Tensor, rounds: int) -> dict[str, float]:
    """Return the milliseconds of the comparison and of each way to predict."""
    members(x)
    kept = members._kept.of(members.network, members.plain, MEMBERS)
    runs = {
        "comparison": lambda: members._kept._is_current(members.network),
        "kept": lambda: torch.stack([member(x) for member in kept]),
        "anew": lambda: members.loop([x] * MEMBERS),
        "one pass": lambda: members.tile(torch.cat([x] * MEMBERS)),
    }
    return least(runs, rounds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=32, help="height and width of the images (default: 32)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 128])
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    given = sys.argv[1:] if arguments is None else list(arguments)
    origin = about(shlex.join(["python", "-m", "benchmarks.kept", *given]), torch.device("cpu"))
    print(f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`\n")
    print("| network | batch | comparison, ms | of the prediction | kept, ms | folded anew | one pass |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, make in NETWORKS.items():
        members = ensemble(make().eval(), MEMBERS, strategy="tile")
        for batch in options.batches:
            found = measure(members, torch.randn(batch, 3, options.size, options.size), options.rounds)
            whole = found["comparison"] + found["kept"]
            print(
                f"| {name} | {batch} | {found['comparison']:.2f} | {found['comparison'] / whole:.1%} | "
                f"{found['kept']:.0f} | {found['anew']:.0f} | {found['one pass']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
