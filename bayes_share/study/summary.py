"""What a study of optimizers says: tables over seeds, paired differences, and pictures of convergence."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from bayes_share.errors import InputError
from bayes_share.evaluation.curves import Measure, convergence_picture, curve
from bayes_share.evaluation.predictions import read_predictions
from bayes_share.evaluation.repeats import Estimate, estimate, paired_difference
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.table import Cell, format_table
from bayes_share.files import write_atomically
from bayes_share.run import RunFolder
from bayes_share.study.optimizers import Trial

_SHOWN: Mapping[str, tuple[str, float, int]] = {
    "accuracy": ("accuracy [%]", 100, 2),
    "nll": ("NLL [nat]", 1, 4),
    "brier": ("Brier", 1, 4),
    "ece": ("ECE", 1, 4),
    "seconds": ("time [s]", 1, 1),
}
"""Each score's title, factor and decimals."""

_COMPARED = ("accuracy", "nll", "brier", "ece")
_LABELS = {"sgd": "SGD", "adamw": "AdamW", "ivon": "IVON", "svi": "SVI"}
_NOTE = "* Student's 95 % interval of this one difference leaves out 0; of 20 such that are nothing, one does so too."


@dataclass(frozen=True)
class Result:
    """What one finished run came to.

    Args:
        trial: which one.
        scores: on the test images, by name, with the seconds of training.
        history: a record for each epoch.
    """

    trial: Trial
    scores: Mapping[str, float]
    history: Sequence[Mapping[str, float]]


def read_result(trial: Trial, folder: RunFolder) -> Result:
    """Score a finished run and read its course.

    Raises:
        InputError: files that are missing or damaged.
    """
    scores = score(read_predictions(folder.predictions("test")))
    try:
        with folder.metrics.open(encoding="utf-8", newline="") as file:
            history = [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]
        seconds = history[-1]["seconds"]
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise InputError(f"{folder.metrics} is missing or damaged: remove {folder.path}, and run it again") from error
    named = {name: float(getattr(scores, name)) for name in _COMPARED}
    return Result(trial, {**named, "seconds": seconds}, history)


@dataclass(frozen=True)
class Summary:
    """The runs of a study that are finished, in the order of the study.

    Args:
        results: of all of them.
    """

    results: Sequence[Result]

    def scores(self, method: str, size: int, name: str) -> dict[int, float]:
        """One score of one method and size, by seed."""
        found = (result for result in self.results if result.trial[:2] == (method, size))
        return {result.trial.seed: result.scores[name] for result in found}

    @property
    def methods(self) -> list[str]:
        """The methods with a finished run."""
        return list(dict.fromkeys(result.trial.method for result in self.results))

    @property
    def sizes(self) -> list[int]:
        """The sizes with a finished run."""
        return list(dict.fromkeys(result.trial.size for result in self.results))

    def means(self) -> list[tuple[str, int, dict[str, Estimate]]]:
        """Method, size, and each score's mean over seeds."""
        return [
            (method, size, {name: estimate(self.scores(method, size, name).values()) for name in _SHOWN})
            for size in self.sizes
            for method in self.methods
            if self.scores(method, size, "nll")
        ]

    def differences(self) -> list[tuple[str, str, dict[str, Estimate]]]:
        """What is subtracted from what, and the paired difference of each score; where they have a seed in common.

        Every two methods at each size, and every ensemble and the single network of its method.
        """
        methods = [((one, size), (other, size)) for size in self.sizes for other, one in combinations(self.methods, 2)]
        sizes = [((method, size), (method, 1)) for method in self.methods for size in self.sizes if size != 1]
        found = []
        for one, other in (*methods, *sizes):
            pairs = {name: (self.scores(*one, name), self.scores(*other, name)) for name in _COMPARED}
            if pairs["nll"][0].keys() & pairs["nll"][1].keys():
                differences = {name: paired_difference(*pair) for name, pair in pairs.items()}
                found.append((setting(*one), setting(*other), differences))
        return found

    def tables(self, markdown: bool = False) -> str:
        """The means and the differences, each as a table."""
        means: list[Mapping[str, Cell]] = [
            {"method": setting(method, size), **_cells(values, signed=False)} for method, size, values in self.means()
        ]
        differences: list[Mapping[str, Cell]] = [
            {"difference": f"{one} − {other}", **_cells(values, signed=True)}
            for one, other, values in self.differences()
        ]
        parts = ["Scores on the test images: mean ± standard error over seeds.", _table(means, markdown)]
        if differences:
            parts += ["Differences over the same seeds: mean ± standard error.", _table(differences, markdown), _NOTE]
        return "\n\n".join(parts)

    def write(self, folder: Path, name: str) -> None:
        """Write tables (``summary.md``, ``scores.csv``, ``means.csv``, ``differences.csv``) and pictures into a folder.

        Args:
            folder: where to.
            name: of data and network, for the pictures' titles.

        Raises:
            RunError: a file cannot be written.
        """
        write_atomically(folder / "summary.md", (self.tables(markdown=True) + "\n").encode())
        runs = [{**result.trial._asdict(), **result.scores} for result in self.results]
        _write_csv(folder / "scores.csv", runs)
        means = [{"method": method, "size": size, **_numbers(values)} for method, size, values in self.means()]
        _write_csv(folder / "means.csv", means)
        compared = [{"one": one, "other": other, **_numbers(values)} for one, other, values in self.differences()]
        _write_csv(folder / "differences.csv", compared)
        self._draw("validation_accuracy", f"Validation accuracy during training: {name}", folder / "accuracy.png")
        self._draw("validation_nll", f"Validation NLL during training: {name}", folder / "nll.png")

    def _draw(self, measure: Measure, title: str, path: Path) -> None:
        panels = {}
        for size in self.sizes:
            histories = {method: self._histories(method, size) for method in self.methods}
            panels[_size(size)] = {_LABELS[method]: curve(runs, measure) for method, runs in histories.items() if runs}
        count = max(value.count for _, _, values in self.means() for value in values.values())
        over = f"mean ± standard error over {count} seeds" if count > 1 else "one seed"
        convergence_picture(panels, measure, f"{title}; {over}", path)

    def _histories(self, method: str, size: int) -> list[Sequence[Mapping[str, float]]]:
        return [result.history for result in self.results if result.trial[:2] == (method, size)]


def setting(method: str, size: int) -> str:
    """A method with a size, in words."""
    return f"{_LABELS[method]}, {_size(size)}"


def _size(size: int) -> str:
    return "single" if size == 1 else f"ensemble of {size}"


def _cells(values: Mapping[str, Estimate], signed: bool) -> dict[str, str | int]:
    cells: dict[str, str | int] = {}
    for name, value in values.items():
        title, factor, decimals = _SHOWN[name]
        text = f"{factor * value.mean:{'+' if signed else ''}.{decimals}f}"
        if value.error is not None:
            text += f" ± {factor * value.error:.{decimals}f}"
        cells[title] = text + (" *" if signed and value.is_clear() else "")
    return {**cells, "seeds": _count(values)}


def _numbers(values: Mapping[str, Estimate]) -> dict[str, float | int | None]:
    found: dict[str, float | int | None] = {}
    for name, value in values.items():
        found |= {name: value.mean, f"{name}_error": value.error}
    return {**found, "seeds": _count(values)}


def _count(values: Mapping[str, Estimate]) -> int:
    return max(value.count for value in values.values())


def _table(rows: Sequence[Mapping[str, Cell]], markdown: bool) -> str:
    return format_table(list(rows[0]), rows, markdown)


def _write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    lines = list(rows)
    text = io.StringIO()
    if lines:
        writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    write_atomically(path, text.getvalue().encode())
