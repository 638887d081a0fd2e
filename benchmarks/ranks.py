"""Time of a training step on several processes, relative to one process.

    python -m benchmarks.ranks --counts 1 2 --rounds 3

Starts itself with ``torchrun`` for each number of processes in turn, with one CPU thread per process. The global batch
size is the same for all. At best, a step on N processes takes 1/N of the time.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bayes_share.inference import MAP, Execution, Training, batches_of
from bayes_share.inference.step.ranks import joined_by_torchrun
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.sharing import ensemble
from benchmarks.report import about, table

BATCH, SIDE, WARM, STEPS = 128, 16, 5, 30


def measure(members: int, out: Path) -> None:
    """Measure the median milliseconds of a step in one of the processes; the first one writes it."""
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    x = torch.randn(4 * BATCH, 3, SIDE, SIDE, generator=source)
    y = torch.randint(10, (len(x),), generator=source)

    def build() -> Model:
        net = build_network("resnet8", num_classes=10, in_channels=3, image_size=(SIDE, SIDE))
        return Model(net if members == 1 else ensemble(net, members, "random_sign"))

    with joined_by_torchrun(torch.device("cpu")) as ranks:
        execution = Execution("cpu")
        steps = Training(MAP(), build, batches_of((x, y), BATCH), num_steps=10_000, execution=execution).steps()
        seconds = []
        for _ in range(WARM + STEPS):
            started = time.perf_counter()
            next(steps)
            seconds.append(time.perf_counter() - started)
            ranks.wait()
        if ranks.is_first:
            out.write_text(json.dumps(1e3 * statistics.median(seconds[WARM:])))


def main() -> None:
    """Print a table, or measure if started by torchrun."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2], help="numbers of processes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--measure", nargs=2, metavar=("MEMBERS", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(int(options.measure[0]), Path(options.measure[1]))
        return
    rows = []
    for members in (1, 4):
        found: dict[int, list[float]] = {count: [] for count in options.counts}
        for _ in range(options.rounds):
            for count in options.counts:
                with TemporaryDirectory() as folder:
                    out = Path(folder) / "ms.json"
                    torchrun = [
                        sys.executable,
                        "-m",
                        "torch.distributed.run",
                        "--standalone",
                        f"--nproc-per-node={count}",
                    ]
                    words = ["-m", "benchmarks.ranks", "--measure", str(members), str(out)]
                    subprocess.run([*torchrun, *words], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
                    found[count].append(json.loads(out.read_text()))
        medians = {count: statistics.median(times) for count, times in found.items()}
        base = medians[options.counts[0]]
        rows += [
            [str(members), str(count), f"{ms:.1f}", f"{ms / base:.2f}", " ".join(f"{one:.1f}" for one in found[count])]
            for count, ms in medians.items()
        ]
    origin = about(shlex.join(["python", "-m", "benchmarks.ranks", *sys.argv[1:]]), torch.device("cpu"))
    print(f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`\n")
    print(table(["members", "processes", "ms a step", "over one", "rounds"], rows))


if __name__ == "__main__":
    main()
