"""Check how a command ended and what it wrote."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.campaign.process import Outcome
from tests.run.driver import run_contents
from tests.states import differences

LINE = "bayes-share: "
"""The prefix of error lines."""

INTERRUPTED = (130, 128 + signal.SIGTERM)
"""Exit codes of a command that handled a signal."""

_MEMORY = 600 * 2**20  # bytes in addition to the memory a command starts with
_SUSPECT = re.compile(r"Traceback|Warning|Exception|Error\b")
_LONGEST = 2500  # characters of a line
_SHOWN = 1200  # characters shown of the output


@dataclass(frozen=True)
class Failure:
    """A violated expectation.

    Args:
        cause: a short description, equal for failures of the same kind.
        detail: the command and its output.
    """

    cause: str
    detail: str


def failure(cause: str, outcome: Outcome, detail: str = "") -> Failure:
    """Return a failure of a command, with its last output as details."""
    said = outcome.err if len(outcome.err) <= _SHOWN else f"…{outcome.err[-_SHOWN:]}"
    return Failure(cause, f"bayes-share {' '.join(outcome.words)}  -> {outcome.code}\n{detail}{said}"[: 2 * _SHOWN])


def misbehaviour(outcome: Outcome) -> Iterator[Failure]:
    """Yield the failures of a command that must never occur: a command either succeeds or prints one error line."""
    if "Traceback (most recent call last)" in outcome.err:
        yield failure(_signature(outcome.err), outcome)
        return
    if outcome.was_late and "--resume" not in outcome.err:
        yield failure(f"{outcome.words[0]} does not end", outcome, f"after {outcome.seconds:.0f} s\n")
        return
    if outcome.memory > _MEMORY:
        yield failure(f"{outcome.words[0]} takes too much memory", outcome, f"{outcome.memory / 2**20:,.0f} MiB\n")
    if outcome.code not in (0, 1, 2, *INTERRUPTED):
        yield failure(f"exit code {outcome.code}", outcome)
        return
    lines = outcome.err.splitlines()
    ours = [line for line in lines if line.startswith(LINE)]
    if len(ours) != (outcome.code != 0) or (ours and lines[-1] != ours[0]):
        yield failure(f"exit code {outcome.code} with {len(ours)} lines that say why", outcome)
    if odd := [line for line in lines if line not in ours and _SUSPECT.search(line)]:
        yield failure(f"a stray line: {_plain(odd[0])[:60]}", outcome)
    if any(len(line) > _LONGEST for line in lines):
        yield failure("an endless line", outcome)
    if odd := [line for line in (*lines, *outcome.out.split("\n")) if not line.isprintable()]:
        yield failure("a control character reaches the terminal", outcome, f"{odd[0][:200]!r}\n")


def _signature(err: str) -> str:
    """Return the type of the exception and the function of the product that raised it."""
    block = err.rpartition("Traceback (most recent call last):\n")[2]
    last = next((line for line in block.splitlines() if line and not line.startswith(" ")), "nothing")
    places = re.findall(
        r'File "[^"]*?/((?:bayes_share|models|inference|evaluation)/[\w/]+\.py)", line \d+, in (\S+)', err
    )
    return (
        f"{last.split(':')[0].rpartition('.')[2]} in {' '.join(places[-1]) if places else 'no module of the product'}"
    )


def _plain(text: str) -> str:
    return re.sub(r"[\d/]\S*", "*", text)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every regular file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def runs_in(folder: Path) -> list[Path]:
    """Return the folders with a config below a folder."""
    return sorted(path.parent for path in folder.rglob("config.yaml"))


def results(folder: Path) -> dict[str, Any]:
    """Return the results in a folder: the content of every finished run, and the tables of a report."""
    found: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        found["report"] = json.loads((folder / "r.json").read_text())
    for run in runs_in(folder):
        if (run / "summary.json").is_file():
            found[str(run.relative_to(folder))] = contents(run)
    return found


def contents(run: Path) -> dict[str, Any]:
    """Return what `driver.run_contents` returns, with all arrays, and without what is irrelevant to the result."""
    found = run_contents(run)
    found["arrays"] = {str(path.relative_to(run)): _arrays(path) for path in sorted(run.rglob("*.npz"))}
    found["sets"] = {str(path.relative_to(run)): json.loads(path.read_text()) for path in run.rglob("sets.json")}
    found["files"] = [name for name in found["files"] if not name.endswith((".tmp", ".lock"))]
    found["config"] = re.sub(r"(?m)^checkpoint_minutes: .*\n", "", found["config"])
    return found


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return {
            name: torch.from_numpy(file[name]) if file[name].dtype.kind in "fiu" else file[name].tolist()
            for name in file.files
        }


def otherwise(folder: Path, expected: Path) -> list[str]:
    """Return the paths at which the results in two folders differ, or an error if they cannot be read."""
    try:
        found = results(folder)
    except Exception as error:
        return [f"unreadable results: {error!r}"]
    wanted = results(expected)
    return differences({part: found.get(part) for part in wanted}, wanted)
