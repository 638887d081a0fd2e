"""Measure correctness and speed on a GPU.

    python -m benchmarks.gpu --minutes 8 --out gpu.json --data cifar10
    python -m benchmarks.gpu --quick --device cpu --data digits

The parts run in the order of their importance. The file is rewritten after each row. When the time is up, the same
command measures the rows that are missing. No row is started that is expected to end after the limit, except for the
first one. A file of another machine, version of torch or size is refused.

The exit status is 0 if all rows were measured without errors and all checks passed, 1 if a row failed or a check found
wrong results, 2 if an option or the file is invalid, and 3 if rows are missing because the time was up.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bayes_share.errors import InputError, RunError
from benchmarks.gpu.parts import all_parts
from benchmarks.gpu.rows import Cells, Part, Results, measure, problems, shown
from benchmarks.gpu.setting import LEFT_OUT, Setting
from benchmarks.report import about, table


def main(arguments: Sequence[str] | None = None, parts: Callable[[Setting], Sequence[Part]] = all_parts) -> int:
    """Measure the rows that are missing, print all tables, and return the exit status.

    Args:
        arguments: the command line. None: that of the process.
        parts: returns the parts.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    names = [part.name for part in parts(Setting("cpu", is_quick=True))]
    options = _parser(names).parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device here: give --device cpu", file=sys.stderr)
        return 2
    command = shlex.join(["python", "-m", "benchmarks.gpu", *arguments])
    origin = about(command, torch.device(options.device)) | {"sizes": "quick" if options.quick else "full"}
    setting = Setting(options.device, options.quick, options.data, options.augment)
    try:
        chosen = [part for part in parts(setting) if part.name in options.parts]
        results = Results(options.out, origin)
        left = measure(chosen, results, 60 * options.minutes, setting.settle, _say)
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(f"\n{origin['date']}, {origin['machine']}, torch {origin['torch']}, {origin['sizes']} sizes: `{command}`")
    for part in chosen:
        if rows := results.parts.get(part.name):
            print(f"\n### {part.name}\n\n{part.about}\n\n{as_table(rows)}")
    for name, reason in LEFT_OUT.items():
        print(f"\nNot measured: {name}, because {reason}.")
    wrong = problems(chosen, results)
    for problem in wrong:
        print(f"WRONG: {problem}", file=sys.stderr)
    if left:
        print(f"\nThe time is up, and {left} rows are missing: run the same command again to measure them.", flush=True)
    if left and options.out is None:
        print("Without --out, the measured rows were not saved.", flush=True)
    return 1 if wrong else 3 if left else 0


def as_table(rows: Sequence[Cells]) -> str:
    """Return rows as a Markdown table, with columns in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return table(columns, [[shown(row.get(name)) for name in columns] for row in rows])


def _say(line: str) -> None:
    print(line, flush=True)


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where to compute (default: cuda)")
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit; see above (default: 8)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that all parts run")
    parser.add_argument("--data", help="the data set of the part learning, such as cifar10 or npz:FOLDER")
    parser.add_argument("--augment", default="auto", help="its augmentation; for CIFAR in a folder, flip-crop")
    quoted = ", ".join(f'"{name}"' for name in names)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=names,
        default=names,
        metavar="PART",
        help=f"parts to run: {quoted} (default: all)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="a JSON file; an existing one is continued")
    return parser


if __name__ == "__main__":
    sys.exit(main())
