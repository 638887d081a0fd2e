"""The summary of a study of optimizers: tables over seeds, paired differences, and figures of convergence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from bayes_share.evaluation.convergence_curves import Measure, convergence_picture, curve
from bayes_share.evaluation.seed_statistics import Estimate, estimate, paired_difference
from bayes_share.evaluation.table import Cell
from bayes_share.io.files import write_atomically
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study.optimizers import Trial
from bayes_share.study.results import (
    COMPARED,
    NOTE,
    SCORES,
    Result,
    cells,
    numbers,
    over_seeds,
    read_result,
    table,
    write_csv,
)

_COMPARED = ("accuracy", *COMPARED)
_LABELS = {"sgd": "SGD", "adamw": "AdamW", "ivon": "IVON", "svi": "SVI"}
_SCORES = (*SCORES, "seconds")


@dataclass(frozen=True)
class OptimizerSummary:
    """The finished runs of a study, in the order of the study.

    Args:
        results: results of all runs.
    """

    results: Sequence[Result[Trial]]

    def scores(self, method: str, size: int, name: str) -> dict[int, float]:
        """Return a score of a method and ensemble size, by seed."""
        found = (result for result in self.results if result.trial[:2] == (method, size))
        return {result.trial.seed: result.scores[name] for result in found}

    @property
    def methods(self) -> list[str]:
        """The methods with a finished run."""
        return list(dict.fromkeys(result.trial.method for result in self.results))

    @property
    def sizes(self) -> list[int]:
        """The ensemble sizes with a finished run."""
        return list(dict.fromkeys(result.trial.size for result in self.results))

    def means(self) -> list[tuple[str, int, dict[str, Estimate]]]:
        """Return each method and ensemble size with each score's mean over seeds."""
        return [
            (method, size, {name: estimate(self.scores(method, size, name).values()) for name in _SCORES})
            for size in self.sizes
            for method in self.methods
            if self.scores(method, size, "nll")
        ]

    def differences(self) -> list[tuple[str, str, dict[str, Estimate]]]:
        """Return the names of two settings and the paired difference of each score, the first minus the second.

        The pairs are every two methods of equal size, and every ensemble and the single network of the same method, if
        they have a seed in common.
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
        """Return the table of means and the table of differences."""
        means: list[Mapping[str, Cell]] = [
            {"method": setting(method, size), **cells(values, signed=False)} for method, size, values in self.means()
        ]
        differences: list[Mapping[str, Cell]] = [
            {"difference": f"{one} − {other}", **cells(values, signed=True)}
            for one, other, values in self.differences()
        ]
        parts = ["Scores on the test images: mean ± standard error over seeds.", table(means, markdown)]
        if differences:
            parts += ["Differences over the same seeds: mean ± standard error.", table(differences, markdown), NOTE]
        return "\n\n".join(parts)

    def write(self, folder: Path, name: str) -> None:
        """Write tables (``summary.md``, ``scores.csv``, ``means.csv``, ``differences.csv``) and figures into a folder.

        Args:
            folder: the folder to write into.
            name: name of the data and the network, for the titles.

        Raises:
            RunError: if a file cannot be written.
        """
        write_atomically(folder / "summary.md", (self.tables(markdown=True) + "\n").encode())
        runs = [
            {**result.trial._asdict(), **{name: result.scores[name] for name in _SCORES}} for result in self.results
        ]
        write_csv(folder / "scores.csv", runs)
        means = [{"method": method, "size": size, **numbers(values)} for method, size, values in self.means()]
        write_csv(folder / "means.csv", means)
        compared = [{"one": one, "other": other, **numbers(values)} for one, other, values in self.differences()]
        write_csv(folder / "differences.csv", compared)
        self._draw("validation_accuracy", f"Validation accuracy during training: {name}", folder / "accuracy.png")
        self._draw("validation_nll", f"Validation NLL during training: {name}", folder / "nll.png")

    def _draw(self, measure: Measure, title: str, path: Path) -> None:
        panels = {}
        for size in self.sizes:
            histories = {method: self._histories(method, size) for method in self.methods}
            panels[_size_name(size)] = {
                _LABELS[method]: curve(runs, measure) for method, runs in histories.items() if runs
            }
        count = max(value.count for _, _, values in self.means() for value in values.values())
        convergence_picture(panels, measure, f"{title}; {over_seeds(count)}", path)

    def _histories(self, method: str, size: int) -> list[Sequence[Mapping[str, float]]]:
        return [result.history for result in self.results if result.trial[:2] == (method, size)]


def summarise_optimizers(runs: Mapping[Trial, RunFolder]) -> OptimizerSummary:
    """Read the results of finished runs.

    Raises:
        InputError: if a file is missing or damaged.
    """
    return OptimizerSummary([read_result(trial, folder) for trial, folder in runs.items()])


def setting(method: str, size: int) -> str:
    """Return the name of a method and ensemble size in tables."""
    return f"{_LABELS[method]}, {_size_name(size)}"


def _size_name(size: int) -> str:
    return "single" if size == 1 else f"ensemble of {size}"
