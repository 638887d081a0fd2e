"""Memory and time of evaluating large predictions.

Run as ``python -m benchmarks.evaluation``, from the root of a clone. A file of random predictions is written draw by
draw, evaluated in a fresh process, and removed.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayes_share.evaluation import (
    diversity,
    read_predictions,
    risk_coverage,
    score,
    score_intervals,
    uncertainty,
    write_draws,
)
from benchmarks.report import about, table

AIM = 4.0
"""The aim for the resident memory at the default size, in GiB."""


def write(path: Path, draws: int, images: int, classes: int) -> None:
    """Write a file of random predictions that are mostly right."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=generator)

    def logits() -> Iterator[Tensor]:
        for _ in range(draws):
            draw = 2 * torch.randn(1, images, classes, generator=generator)
            draw[0, torch.arange(images), labels] += 6
            yield draw

    write_draws(path, logits(), draws, labels)


def evaluate(path: Path) -> dict[str, Any]:
    """Measure the time of each part of an evaluation and the memory of this process, which should be a fresh one."""
    start = _status()
    seconds, found = {}, {}
    with _Watch() as watch:

        def run(name: str, part: Callable[[], Any]) -> Any:
            began = time.perf_counter()
            found[name] = part()
            seconds[name] = time.perf_counter() - began
            return found[name]

        predictions = run("read_predictions", lambda: read_predictions(path))
        run("score", lambda: score(predictions))
        run("score_intervals", lambda: score_intervals(predictions))
        run("uncertainty", lambda: uncertainty(predictions.logits))
        run("diversity", lambda: diversity(predictions))
        confidence, predicted = predictions.log_probs.max(-1)
        run("risk_coverage", lambda: risk_coverage(confidence, predicted == predictions.labels))
    status = _status()
    return {
        "seconds": seconds,
        "accuracy": found["score"].accuracy,
        "before": start["VmRSS"],
        "peak": status["VmHWM"],
        "own": watch.peak,
    }


class _Watch:
    """Records the peak private memory of this process, without pages of mapped files."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.005):
            self.peak = max(self.peak, _status()["RssAnon"])


def _status() -> dict[str, float]:
    """Return the kernel's memory statistics of this process, in GiB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 2**20 for words in lines if words[-1] == "kB"}


def tables(results: dict[str, Any]) -> str:
    """Return the origin of the results, the seconds of each part and the memory, in Markdown."""
    origin = results["about"]
    lines = [[f"`{name}`", f"{seconds:.1f}"] for name, seconds in results["seconds"].items()]
    lines.append(["all", f"{sum(results['seconds'].values()):.1f}"])
    memory = (
        f"The file: {results['file']:.2f} GiB, written in {results['writing']:.0f} s. Resident memory: "
        f"{results['before']:.2f} GiB after the imports, {results['peak']:.2f} GiB at most (aim: under {AIM:g}), of "
        f"which {results['own']:.2f} GiB at most are the process's own; the rest are pages of the mapped file."
    )
    title = f"{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`"
    return "\n\n".join([title, table(["part", "seconds"], lines), memory])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file, evaluate it in a fresh process, remove it, and print the table."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--draws", type=int, default=64, help="draws (default: 64)")
    parser.add_argument("--images", type=int, default=10_000, help="images (default: 10,000)")
    parser.add_argument("--classes", type=int, default=1000, help="classes (default: 1000)")
    parser.add_argument("--threads", type=int, help="threads (default: torch's)")
    parser.add_argument("--folder", type=Path, help="folder of the file (default: the system's temporary folder)")
    parser.add_argument("--evaluate", type=Path, metavar="NPZ", help="only evaluate this file, and print JSON")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.evaluate is not None:
        print(json.dumps(evaluate(options.evaluate)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "predictions.npz"
        began = time.perf_counter()
        write(path, options.draws, options.images, options.classes)
        writing = time.perf_counter() - began
        command = [sys.executable, "-m", "benchmarks.evaluation", "--evaluate", str(path)]
        if options.threads is not None:
            command += ["--threads", str(options.threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results = {
            "about": about(shlex.join(["python", "-m", "benchmarks.evaluation", *arguments]), torch.device("cpu")),
            "file": path.stat().st_size / 2**30,
            "writing": writing,
            **json.loads(done.stdout),
        }
    print(tables(results))


if __name__ == "__main__":
    main()
