"""Time of a step and of a prediction of each algorithm, relative to another checkout, interleaved in one run.

Run as ``python -m benchmarks.steps --against CHECKOUT``, from the root of a clone.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

from bayes_share.errors import RunError
from bayes_share.io.files import write_atomically
from benchmarks.report import about, table
from benchmarks.steps_worker import OPTIONS

ROOT = Path(__file__).resolve().parent.parent
NETWORKS, MEMBERS = ("mlp", "resnet", "tiny"), (1, 4)
AIM = 1.05
CONFIDENCE = 0.99  # above the usual 0.95, because the interval is checked after each pair
LEAST_PAIRS = 8  # the smallest number of pairs with a finite interval

# Processes keep freed memory, so that steps are not slowed down by page faults.
_KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}


@dataclass(frozen=True)
class Case:
    """A timed case.

    Args:
        network: "mlp" (64 inputs, two hidden layers of 128, batch 128), "resnet" (ResNet-20 with filter response norms,
            32x32, batch 32) or "tiny" (64 inputs, 16 hidden units, all 64 examples in a batch).
        members: the size of a BatchEnsemble; 1 is a single network.
        algorithm: a key of `OPTIONS`.
    """

    network: str
    members: int
    algorithm: str


def cases(networks: Sequence[str], members: Sequence[int], algorithms: Sequence[str]) -> list[Case]:
    """Return the cases to time. NUTS runs only on the tiny network, and the low-rank guide of SVI only on the MLP."""
    own = {"nuts": "tiny", "svi-low-rank": "mlp"}
    return [
        Case(*case)
        for case in product(networks, members, algorithms)
        if case[0] == own.get(case[2], case[0]) and (case[0] != "tiny" or case[2] == "nuts")
    ]


class Worker:
    """A process that imports the package of one checkout, and executes and times commands.

    Args:
        tree: the checkout.
        device: the device to compute on.
        threads: the number of CPU threads.

    Raises:
        RunError: the process imports the package from elsewhere.
    """

    def __init__(self, tree: Path, device: str, threads: int) -> None:
        # Without `site`, editable installs are not on the path. The checkout comes before all packages.
        packages = Path(torch.__file__).resolve().parent.parent
        environment = {**os.environ, **_KEEPS_MEMORY, "PYTHONPATH": os.pathsep.join([str(tree), str(packages)])}
        command = [sys.executable, "-S", "-P", str(ROOT / "benchmarks" / "steps_worker.py"), device, str(threads)]
        self.tree = tree
        self.process = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        files = self._answer().get("files", [])
        if not files or not all(Path(file).resolve().is_relative_to(tree) for file in files):
            self.__exit__(None, None, None)
            raise RunError(f"expected the package of {tree}, but imported {', '.join(files) or 'none'}")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, what: str, **options: Any) -> float:
        """Execute a command in the process.

        Returns:
            The seconds it took.

        Raises:
            RunError: the command failed. The message names the checkout and the reason.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": what, **options}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # reading the answer fails then
        answer = self._answer()
        if "error" in answer:
            raise RunError(f"{self.tree}: {answer['error']}")
        return float(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process has died"}
        return answer


class Interval(NamedTuple):
    """The median of some ratios, with a confidence interval by order statistics."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Interval":
        """Compute the interval that contains the population's median with a probability of at least `CONFIDENCE`.

        >>> Interval.of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
        Interval(low=1.0, median=4.5, high=8.0)
        >>> Interval.of([1.0, 2.0]).high
        inf
        """
        count, ordered = len(ratios), sorted(ratios)
        outside, left_out = 0.0, 0
        while (outside := outside + 2 * math.comb(count, left_out) / 2**count) <= 1 - CONFIDENCE:
            left_out += 1
        if left_out == 0:
            return cls(0.0, statistics.median(ratios), math.inf)
        return cls(ordered[left_out - 1], statistics.median(ratios), ordered[-left_out])

    @property
    def is_clear(self) -> bool:
        """Whether the interval is entirely on one side of the aim."""
        return self.high < AIM or self.low > AIM


class Found(NamedTuple):
    """The results of a case: the milliseconds of both checkouts, their ratio, and the number of pairs of blocks."""

    old: float
    new: float
    ratio: Interval
    pairs: int


class Budget(NamedTuple):
    """The budget of a line of the table: the maximum number of pairs, the total seconds, and the seconds of a block."""

    pairs: int
    seconds: float
    block: float


def compare(old: Callable[[int], float], new: Callable[[int], float], budget: Budget) -> Found:
    """Compare the times of two functions in pairs of blocks, timed in turn: old, new, new, old, and so on.

    Args:
        old: runs a given number of times, and returns the seconds.
        new: runs a given number of times, and returns the seconds.
        budget: the limits. The comparison ends earlier if the interval is entirely on one side of the aim.
    """
    started = time.perf_counter()
    for each in (old, new):
        each(1)  # warm-up: allocations and lazy initialisation
    count = max(1, round(budget.block / max(1e-6, old(1), new(1))))
    times: list[tuple[float, float]] = []
    while len(times) < budget.pairs:
        if len(times) % 2 == 0:
            of_old, of_new = old(count), new(count)
        else:
            of_new, of_old = new(count), old(count)
        times.append((of_old, of_new))
        ratio = Interval.of([of_new / of_old for of_old, of_new in times])
        is_spent = time.perf_counter() - started > budget.seconds
        if len(times) >= LEAST_PAIRS and (ratio.is_clear or is_spent):
            break
    medians = (1e3 * statistics.median(each) / count for each in zip(*times, strict=True))
    return Found(*medians, ratio, len(times))


def rows(case: Case, old: Worker, new: Worker, budget: Budget) -> Iterator[list[str]]:
    """Yield the lines of a case: one for a step, and one for a prediction after training."""
    name = [case.network, str(case.members), case.algorithm]
    try:
        for worker in (old, new):
            worker("open", network=case.network, members=case.members, algorithm=case.algorithm)
        yield [*name, "step", *_line(_compare("steps", old, new, budget))]
        for worker in (old, new):
            worker("finish")
        yield [*name, "prediction", *_line(_compare("predictions", old, new, budget))]
    except RunError as error:
        yield [*name, str(error), *["–"] * 5]


def _compare(what: str, old: Worker, new: Worker, budget: Budget) -> Found:
    return compare(lambda count: old(what, count=count), lambda count: new(what, count=count), budget)


def _line(found: Found) -> list[str]:
    low, median, high = found.ratio
    verdict = "met" if high < AIM else "missed" if low > AIM else "not clear"
    times = [f"{found.old:.3g}", f"{found.new:.3g}"]
    return [*times, f"{median:.3f} [{low:.3f}–{high:.3f}]", str(found.pairs), verdict]


HEADER = ["network", "M", "algorithm", "", "old, ms", "new, ms", "new over old", "pairs", f"below {AIM}"]


def commit_of(tree: Path) -> str:
    """Return the commit of a checkout, marked as dirty if files have changed."""
    described = subprocess.run(
        ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    return described.stdout.strip() or "unknown"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare this tree with another one."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    origin = about(shlex.join(["python", "-m", "benchmarks.steps", *arguments]), torch.device(options.device))
    heading = (
        f"{origin['date']}, {origin['machine'].rpartition(',')[0] if options.device == 'cpu' else origin['machine']}, "
        f"{options.threads} threads, torch {origin['torch']}, commit {commit_of(ROOT)} over "
        f"{commit_of(options.against)}: `{origin['command']}`"
    )
    budget = Budget(options.rounds, options.budget, options.block)
    lines: list[list[str]] = []
    with ExitStack() as stack:
        trees = (options.against.resolve(), ROOT)
        old, new = (stack.enter_context(Worker(tree, options.device, options.threads)) for tree in trees)
        for case in cases(options.networks, options.members, options.algorithms):
            for line in rows(case, old, new, budget):
                print(", ".join(line), file=sys.stderr, flush=True)
                lines.append(line)
                if options.out is not None:
                    write_atomically(options.out, f"{heading}\n\n{table(HEADER, lines)}\n".encode())
    print(f"{heading}\n\n{table(HEADER, lines)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("--against", type=Path, required=True, help="a checkout of another commit")
    parser.add_argument("--rounds", type=int, default=60, help="pairs of blocks for each line, at most (default: 60)")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for each line (default: 120)")
    parser.add_argument("--block", type=float, default=0.3, help="seconds of a block (default: 0.3)")
    parser.add_argument("--algorithms", nargs="+", default=list(OPTIONS), choices=OPTIONS, help="(default: all)")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS, help="(default: all)")
    parser.add_argument("--members", nargs="+", type=int, default=MEMBERS, help="(default: 1 4)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process (default: 1)")
    parser.add_argument("--out", type=Path, help="a Markdown file, rewritten after each line")
    return parser


if __name__ == "__main__":
    main()
