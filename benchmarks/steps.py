"""Time of a step and of a prediction of each algorithm, of this tree over another checkout, interleaved in one run.

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
CONFIDENCE = 0.99  # above the usual 0.95, as the interval is looked at after each pair
LEAST_PAIRS = 8  # of which there is such an interval

# What a process frees it keeps, so that a step is not timed with the system's giving of memory.
_KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}


@dataclass(frozen=True)
class Case:
    """What is timed.

    Args:
        network: "mlp" (64 inputs, 128-128, batch 128), "resnet" (ResNet-20 with filter response norms, 32x32, batch
            32) or "tiny" (64 inputs, 16 hidden, all of 64 examples).
        members: of a BatchEnsemble; 1: a single network.
        algorithm: by its name in `OPTIONS`.
    """

    network: str
    members: int
    algorithm: str


def cases(networks: Sequence[str], members: Sequence[int], algorithms: Sequence[str]) -> list[Case]:
    """What is timed of these: NUTS on the tiny network alone, and a guide that goes through Pyro on the MLP alone."""
    own = {"nuts": "tiny", "svi-low-rank": "mlp"}
    return [
        Case(*case)
        for case in product(networks, members, algorithms)
        if case[0] == own.get(case[2], case[0]) and (case[0] != "tiny" or case[2] == "nuts")
    ]


class Worker:
    """A process with the package of one tree, which does what it is told and times it.

    Args:
        tree: a checkout.
        device: where to compute.
        threads: on a CPU.

    Raises:
        RunError: it is another tree's package that it finds.
    """

    def __init__(self, tree: Path, device: str, threads: int) -> None:
        # Without `site`, an editable install of some tree is not on the path; this tree's is, before all packages.
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
            raise RunError(f"the package is to be that of {tree}, and is {', '.join(files) or 'not found'}")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, what: str, **options: Any) -> float:
        """Have something done.

        Returns:
            Its seconds.

        Raises:
            RunError: it could not be done; says by which tree and why.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": what, **options}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # there is no answer then
        answer = self._answer()
        if "error" in answer:
            raise RunError(f"{self.tree}: {answer['error']}")
        return float(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its process has died"}
        return answer


class Interval(NamedTuple):
    """The median of some ratios, and what it is in the population, by order statistics."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> "Interval":
        """The interval that holds the population's median with a probability of at least `CONFIDENCE`.

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
        """Whether it is on one side of the aim."""
        return self.high < AIM or self.low > AIM


class Found(NamedTuple):
    """What was found of a case: milliseconds of both trees, the ratio, and how many pairs of blocks it is from."""

    old: float
    new: float
    ratio: Interval
    pairs: int


class Budget(NamedTuple):
    """What may be spent on a line of the table: pairs of blocks, seconds for all of them, and for one block."""

    pairs: int
    seconds: float
    block: float


def compare(old: Callable[[int], float], new: Callable[[int], float], budget: Budget) -> Found:
    """The time of one thing over that of another, from pairs of blocks that are timed in turn: old, new, new, old, ….

    Args:
        old: does it so many times, and gives the seconds.
        new: the same.
        budget: is not spent where the interval is clear of the aim before.
    """
    started = time.perf_counter()
    for each in (old, new):
        each(1)  # sets up memory, and settles what is settled once
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
    """Lines of the table for a case: of a step, and of a prediction after it."""
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
    """The commit of a checkout, marked where files are changed since."""
    described = subprocess.run(
        ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True
    )
    return described.stdout.strip() or "of no repository"


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
    parser.add_argument("--threads", type=int, default=1, help="of each process on a CPU (default: 1)")
    parser.add_argument("--out", type=Path, help="a Markdown file, written anew after each line")
    return parser


if __name__ == "__main__":
    main()
