"""Results as a file and as tables."""

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bayes_share.io.files import write_atomically
from benchmarks.measure import Spread
from benchmarks.networks import Case

Row = dict[str, Any]

TRAINING = ("auto", "activations", "weights", "peer")


class Results:
    """Result rows with their origin, in a file that is rewritten after each row.

    Args:
        path: the file, or None.
        about: the date, version of torch, machine and command.
    """

    def __init__(self, path: Path | None, about: Mapping[str, str]) -> None:
        self.path = path
        self.about = dict(about)
        self.rows: list[Row] = []

    def add(self, case: Case, **measured: Any) -> None:
        """Add the results of a case."""
        self.rows.append(asdict(case) | measured)
        if self.path is not None:
            write_atomically(self.path, json.dumps({"about": self.about, "rows": self.rows}, indent=1).encode())

    def __str__(self) -> str:
        return tables(self.about, self.rows)


def about(command: str, device: torch.device) -> dict[str, str]:
    """Return the date, the version of torch, the machine and the command."""
    machine = f"{_cpu()}, {torch.get_num_threads()} threads"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else machine,
        "command": command,
    }


def tables(about: Mapping[str, str], rows: Iterable[Row]) -> str:
    """Return the origin of the rows and a table for each kind of results, in Markdown."""
    rows = list(rows)
    parts = [f"{about['date']}, {about['machine']}, torch {about['torch']}: `{about['command']}`"]
    if layers := [row for row in rows if "training" in row]:
        parts.append(_layers(layers))
        parts.append("Peak memory of a training step, relative to the plain network:\n\n" + _peaks(layers))
    if sweep := [row for row in rows if "thresholds" in row]:
        parts.append(_thresholds(sweep))
    return "\n\n".join(parts)


def _layers(rows: list[Row]) -> str:
    header = [
        *("widths", "M", "dtype", "mode", "training: auto", "activations", "weights", "peer", "bytes saved"),
        *("prediction", "prediction: peer", "plain, ms"),
    ]
    lines = []
    for row in rows:
        training, prediction = (
            {name: _spread(v) for name, v in row[part].items()} for part in ("training", "prediction")
        )
        lines.append(
            [
                *_case(row),
                *(training.get(name, "–") for name in TRAINING),
                f"{row['saved']['auto'] / row['saved']['plain']:.3f}",
                *(prediction.get(name, "–") for name in ("auto", "peer")),
                " / ".join(f"{1000 * seconds:.0f}" for seconds in row["plain_seconds"].values()),
            ]
        )
    return table(header, lines)


def _peaks(rows: list[Row]) -> str:
    def ratio(row: Row, name: str) -> str:
        peak = row["peak"].get(name)
        return "–" if peak is None else f"{peak / row['peak']['plain']:.3f}"

    lines = [[*_case(row), *(ratio(row, name) for name in TRAINING)] for row in rows]
    return table(["widths", "M", "dtype", "mode", *TRAINING], lines)


def _thresholds(rows: list[Row]) -> str:
    thresholds = list(rows[0]["thresholds"])
    lines = [[*_case(row), *(_spread(row["thresholds"][name]) for name in thresholds)] for row in rows]
    means = {name: _geometric_mean(row["thresholds"][name][1] for row in rows) for name in thresholds}
    lines.append(["geometric mean", "", "", "", *(f"{mean:.3f}" for mean in means.values())])
    sweep = table(["widths", "M", "dtype", "mode", *thresholds], lines)
    return f"{sweep}\n\nBest threshold overall: {min(means, key=means.__getitem__)}"


def _case(row: Row) -> list[str]:
    width = row["width"]
    return [f"{width}–{8 * width}", str(row["members"]), row["dtype"], row["mode"]]


def _spread(quartiles: Iterable[float]) -> str:
    return str(Spread(*quartiles))


def _geometric_mean(values: Iterable[float]) -> float:
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def table(header: list[str], lines: list[list[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def _cpu() -> str:
    """Return the name of the processor and the number of cores."""
    information = Path("/proc/cpuinfo")
    names = []
    if information.is_file():
        names = [
            line.partition(":")[2].strip() for line in information.read_text().splitlines() if "model name" in line
        ]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
