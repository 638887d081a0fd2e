"""Measure the rows of several tables in a given time, and continue where an earlier run stopped."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayes_share.errors import InputError, RunError
from bayes_share.io.files import write_atomically
from bayes_share.io.reading import reading

Cells = dict[str, Any]
"""A row's values by column: text, numbers, or None for an empty cell."""

FAILED = "failed: "
"""The start of a cell whose measurement raised an error. The error's first line follows."""

MUST_MATCH = ("machine", "torch", "sizes")
"""What must be equal for rows of two runs to belong in one file: the GPU or CPU, the version of torch, and --quick."""


@dataclass(frozen=True)
class Row:
    """A row that can be measured.

    Args:
        key: the leading columns. They identify the row within its part.
        measure: returns the other columns.
        seconds: the expected duration of `measure`.
    """

    key: Cells
    measure: Callable[[], Cells]
    seconds: float = 5.0


@dataclass(frozen=True)
class Part:
    """A table of rows that belong together.

    Args:
        name: the heading.
        about: what the columns contain, in one or two sentences.
        rows: the rows, the most important first.
        problem: returns what is wrong with a measured row, or None. A failed cell is always a problem.
    """

    name: str
    about: str
    rows: Sequence[Row]
    problem: Callable[[Cells], str | None] = lambda cells: None


class Results:
    """Measured rows by part, in a JSON file that is rewritten after each row.

    Args:
        path: the file, or None. An existing file is continued.
        origin: describes this run; see `MUST_MATCH`.

    Raises:
        InputError: if the file is not a file of results, or its rows have another origin.
    """

    def __init__(self, path: Path | None, origin: Mapping[str, str]) -> None:
        self._path, self._origin = path, dict(origin)
        self.parts: dict[str, list[Cells]] = {}
        if path is not None and path.exists():
            with reading(path, "results of this benchmark", "; give another file with --out"):
                found = json.loads(path.read_text())
                theirs = {name: found["about"][name] for name in MUST_MATCH}
                self.parts = {part: [dict(cells) for cells in rows] for part, rows in found["parts"].items()}
            for name, there in theirs.items():
                if there != origin[name]:
                    raise InputError(
                        f"{path} has rows with {name} {there!r}, and this run has {origin[name]!r}: "
                        "give another file with --out"
                    )

    def find(self, part: str, key: Cells) -> Cells | None:
        """Return the measured row with a key, or None."""
        return next((row for row in self.parts.get(part, []) if key.items() <= row.items()), None)

    def add(self, part: str, cells: Cells) -> None:
        """Add a row, and write the file."""
        self.parts.setdefault(part, []).append(cells)
        if self._path is not None:
            content = {"about": self._origin, "parts": self.parts}
            write_atomically(self._path, json.dumps(content, indent=1).encode())


def attempt(measure: Callable[[], Any]) -> Any:
    """Return the result of a measurement or, if it raises an error, a text that starts with `FAILED`."""
    try:
        return measure()
    except Exception as error:  # whatever a device, a compiler or a library raises
        return FAILED + f"{type(error).__name__}: {error}".partition("\n")[0]


def failures(cells: Cells) -> list[str]:
    """Return the names of the failed cells with their errors."""
    return [f"{name} {value}" for name, value in cells.items() if isinstance(value, str) and value.startswith(FAILED)]


def measure(
    parts: Sequence[Part],
    results: Results,
    seconds: float,
    settle: Callable[[], None],
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Measure the missing rows in order, as far as the time allows.

    A row is not started if it is expected to end after the limit, except for the first row of a run: so every run
    makes progress.

    Args:
        parts: the parts, the most important first.
        results: rows that were measured before. New rows are added.
        seconds: the time limit.
        settle: is called after each row; frees memory and waits for the device.
        say: prints a line.
        clock: the time in seconds.

    Returns:
        The number of rows that are still missing.

    Raises:
        RunError: if `settle` raises an error. The row before it is in the results.
    """
    end, is_first, left = clock() + seconds, True, 0
    for part in parts:
        has_heading = False
        for row in part.rows:
            if results.find(part.name, row.key) is not None:
                continue
            if not is_first and clock() + row.seconds > end:
                left += 1
                continue
            if not has_heading:
                say(f"\n## {part.name}\n\n{part.about}\n")
            is_first, has_heading = False, True
            started = clock()
            found = attempt(row.measure)
            cells = row.key | (found if isinstance(found, dict) else {"row": found})
            results.add(part.name, cells)
            line = ", ".join(f"{name}: {shown(value)}" for name, value in cells.items() if value not in (None, ""))
            say(f"  {line} ({clock() - started:.0f} s)")
            for failure in failures(cells):
                say(f"    {failure}")
            try:
                settle()
            except RuntimeError as error:
                raise RunError(
                    f"the device no longer works after the row {line!r} ({str(error).splitlines()[0]}): "
                    "run the same command again to continue with the next row"
                ) from error
    return left


def problems(parts: Sequence[Part], results: Results) -> list[str]:
    """Return the failed cells and the failed checks of all measured rows, each in one line."""
    found = []
    for part in parts:
        for row in part.rows:
            if (cells := results.find(part.name, row.key)) is None:
                continue
            which = ", ".join(str(value) for value in row.key.values() if value not in (None, ""))
            wrong = failures(cells) or [problem for problem in (part.problem(cells),) if problem]
            found += [f"{part.name}: {which}: {one}" for one in wrong]
    return found


def shown(value: Any) -> str:
    """Return a cell as text: three digits of a float, and a dash for an empty cell."""
    if value is None or value == "":
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return FAILED.rstrip(": ") if isinstance(value, str) and value.startswith(FAILED) else str(value)
