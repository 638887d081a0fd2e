"""Measure correctness and speed on a GPU.

    python -m benchmarks.gpu --minutes 8 --out gpu.json --data cifar10
    python -m benchmarks.gpu --quick --device cpu

The parts are ordered by importance. The file is rewritten after each row. Finished parts in an existing file are not
repeated. When the time is up, the current row is finished, and the same command continues with the rest.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bayes_share.io.files import write_atomically
from benchmarks.gpu.parts import PARTS, Row, Setting
from benchmarks.report import about, table


def as_table(rows: list[Row]) -> str:
    """Return rows as a Markdown table, with columns in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return table(columns, [[_cell(row.get(name)) for name in columns] for row in rows])


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _problems(part: str, rows: list[Row], tolerance: float) -> list[str]:
    """Return the failed checks of the parts that check correctness."""
    if part == "outputs against the CPU":
        return [
            f"{row['network']}, {row['sharing']}: {name} differ by {value:.1e}"
            for row in rows
            for name, value in row.items()
            if isinstance(value, float) and not value < tolerance
        ]
    if part == "captured steps against eager ones":
        return [
            f"{row['algorithm']}: captured and eager steps differ by {row['apart']:.1e}"
            for row in rows
            if not row["apart"] < 1e-3
        ]
    return []


def main() -> int:
    """Run the parts; return 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where to compute (default: cuda)")
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit for starting a row (default: 8)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that all parts run")
    parser.add_argument("--data", help="a data set for the last part, such as cifar10 or npz:FOLDER")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        metavar="PART",
        help="parts to run (default: all)",
    )
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device here: give --device cpu", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    setting = Setting(options.device, options.quick, options.data)
    origin = about(shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]), torch.device(options.device))
    found: dict[str, Any] = {"about": origin, "parts": {}, "finished": []}
    if options.out is not None and options.out.exists():
        found |= {name: json.loads(options.out.read_text())[name] for name in ("parts", "finished")}
    end, problems = time.monotonic() + 60 * options.minutes, []
    for part in options.parts:
        if part not in found["finished"]:
            print(f"\n## {part}\n", flush=True)
            rows: list[Row] = []
            found["parts"][part] = rows
            is_over = False
            for row in PARTS[part](setting):
                rows.append(row)
                print("  " + ", ".join(f"{name} {_cell(value)}" for name, value in row.items()), flush=True)
                is_over = time.monotonic() > end
                _write(options.out, found)
                if is_over:
                    break
            if is_over:
                print(f"\nThe time is up in {part!r}: run the same command again to continue.", flush=True)
                break
            found["finished"].append(part)
            _write(options.out, found)
        problems += _problems(part, found["parts"][part], 1e-9)
    print(f"\n{origin['date']}, {origin['machine']}, torch {origin['torch']}: `{origin['command']}`")
    for part, rows in found["parts"].items():
        if rows:
            print(f"\n### {part}\n\n{as_table(rows)}")
    for problem in problems:
        print(f"WRONG: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _write(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        write_atomically(path, json.dumps(found, indent=1).encode())


if __name__ == "__main__":
    sys.exit(main())
