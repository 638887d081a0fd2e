"""Speed and memory of ensembles shaped like ResNet-18, relative to the plain network on as many (member, image) pairs.

Run as ``python -m benchmarks.layers``, from the root of a clone.
"""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import forget_compiled, peak_bytes, saved_bytes, time_ratios
from benchmarks.networks import MODES, Case, Subject, folding_above, subjects
from benchmarks.report import Results, about, tables

DTYPES = ("float32", "bfloat16")
THRESHOLDS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf)


def cases(pairs: int) -> list[Case]:
    """Return the cases to measure: several widths and ensemble sizes in eager mode, and one size in the other modes."""
    sizes = [(16, 4), (32, 4), (64, 4), (32, 2), (32, 8), (32, 16)]
    eager = [Case(*size, pairs, dtype) for size in sizes for dtype in DTYPES]
    return eager + [Case(32, 4, pairs, dtype, mode) for mode in MODES if mode != "eager" for dtype in DTYPES]


def threshold_cases(pairs: int) -> list[Case]:
    """Return the cases for which the threshold of the rule is swept."""
    return [Case(*size, pairs, dtype) for size in [(16, 4), (32, 4), (64, 4), (32, 16)] for dtype in DTYPES]


def measure(case: Case, repeats: int, device: torch.device) -> dict[str, Any]:
    """Measure the time of a training step and of prediction, bytes saved for backward, and peak memory.

    Times are relative to the plain network; bytes are absolute.
    """
    found = _prepared(case, device)
    for subject in found.values():
        subject.network.train()
    if "peer" in found and (problem := _problem(found["peer"].train)):
        print(f"  no column for torch-uncertainty: {problem}", flush=True)
        del found["peer"]
    trains: dict[str, Callable[[], object]] = {name: subject.train for name, subject in found.items()}
    training, train_seconds = time_ratios(trains, "plain", repeats, device)
    saved = {name: saved_bytes(subject.loss, subject.network) for name, subject in found.items()}
    peak = {name: peak_bytes(train, device) for name, train in trains.items()}
    predicted = {name: found[name] for name in ("plain", "auto", "peer") if name in found}
    for subject in predicted.values():
        subject.network.eval()
    predicts: dict[str, Callable[[], object]] = {name: subject.predict for name, subject in predicted.items()}
    prediction, predict_seconds = time_ratios(predicts, "plain", repeats, device)
    return {
        "rounds": repeats,
        "training": training,
        "prediction": prediction,
        "saved": saved,
        "peak": peak,
        "plain_seconds": {"training": train_seconds, "prediction": predict_seconds},
    }


def measure_thresholds(case: Case, repeats: int, device: torch.device) -> dict[str, Any]:
    """Measure the time of a training step relative to the plain network, for each threshold of the rule."""
    found = _prepared(case, device)
    ours = found["auto"]
    runs: dict[str, Callable[[], object]] = {"plain": found["plain"].train}
    for threshold in THRESHOLDS:
        runs[str(threshold)] = replace(ours, network=folding_above(ours.network, threshold)).train
    ratios, seconds = time_ratios(runs, "plain", repeats, device)
    return {"rounds": repeats, "thresholds": ratios, "plain_seconds": {"training": seconds}}


def _prepared(case: Case, device: torch.device) -> dict[str, Subject]:
    if case.mode == "compiled":
        forget_compiled()
    return subjects(case, device)


def _problem(run: Callable[[], object]) -> str | None:
    """Run something, and return its error in one line, or None."""
    try:
        run()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cases, or print the tables of a file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    if options.table is not None:
        print(tables(**json.loads(options.table.read_text())))
        return
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    pairs, repeats = (256, 5) if options.quick else (512, 15)
    repeats = options.repeats or repeats
    results = Results(options.out, about(shlex.join(["python", "-m", "benchmarks.layers", *arguments]), device))
    modes = options.modes or [mode for mode in MODES if not (options.quick and mode == "compiled")]
    chosen = [case for case in (threshold_cases if options.threshold else cases)(pairs) if case.mode in modes]
    for number, case in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)}: {case}", flush=True)
        measured = (measure_thresholds if options.threshold else measure)(case, repeats, device)
        for part in ("training", "prediction", "thresholds"):
            if part in measured:
                print(
                    f"  {part}: " + ", ".join(f"{name} {ratio}" for name, ratio in measured[part].items()), flush=True
                )
        results.add(case, **measured)
    print(f"\n{results}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, help="threads on a CPU (default: torch's)")
    parser.add_argument("--repeats", type=int, help="rounds of each case (default: 15, or 5 with --quick)")
    parser.add_argument("--out", type=Path, help="a JSON file, rewritten after each case")
    parser.add_argument("--quick", action="store_true", help="256 (member, image) pairs, not 512; nothing compiled")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="only these modes (default: all)")
    parser.add_argument("--threshold", action="store_true", help='sweep the threshold of the rule for "auto" instead')
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the tables of this file; measure nothing")
    return parser


if __name__ == "__main__":
    main()
