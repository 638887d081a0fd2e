"""What a study of ensembles says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayes_share.evaluation.repeats import estimate
from bayes_share.evaluation.table import Cell
from bayes_share.files import write_atomically
from bayes_share.run_folder import RunFolder
from bayes_share.study.ensemble_rows import ROWS
from bayes_share.study.ensembles import EnsembleTrial
from bayes_share.study.results import SCORES, Result, cells, read_result, table


@dataclass(frozen=True)
class EnsembleSummary:
    """The runs of a study that are finished, in the order of the study.

    Args:
        results: of all of them.
    """

    results: Sequence[Result[EnsembleTrial]]

    def tables(self, markdown: bool = False) -> str:
        """The table."""
        rows: list[Mapping[str, Cell]] = []
        for name, row in ROWS.items():
            own = [result for result in self.results if result.trial.row == name]
            if own:
                means = {score: estimate(result.scores[score] for result in own) for score in (*SCORES, "seconds")}
                rows.append({"row": row.label, **cells(means, signed=False)})
        return table(rows, markdown)

    def write(self, folder: Path, name: str) -> None:
        """Write the table."""
        write_atomically(folder / "summary.md", (self.tables(markdown=True) + "\n").encode())


def summarise_ensembles(runs: Mapping[EnsembleTrial, RunFolder]) -> EnsembleSummary:
    """Read what finished runs came to."""
    return EnsembleSummary([read_result(trial, folder) for trial, folder in runs.items()])
