"""The best run by a score, and whether its lead is significant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan

from torch import Tensor

from bayes_share.evaluation.seed_statistics import Estimate, estimate
from bayes_share.reports.best_marks import badness
from bayes_share.reports.document import Column


@dataclass(frozen=True)
class Ranking:
    """The best of several runs by a score.

    Args:
        best: index of the best run.
        gaps: the mean paired difference of the best run from each other run, by index, the next best first.
    """

    best: int
    gaps: Mapping[int, Estimate]

    @property
    def is_clear(self) -> bool:
        """Whether the best run is significantly better than every other run."""
        return all(gap.is_clear() for gap in self.gaps.values())

    def sentence(self, column: Column, names: Sequence[str], value: float, in_units: bool = True) -> str:
        """Return a sentence on the best run.

        Args:
            column: the column of the score.
            names: names of all runs.
            value: score of the best run.
            in_units: whether differences are in the units of the score.
        """
        unit = " points" if column.factor == 100 else ""
        which = "highest" if column.better == "higher" else "lowest"
        score = f"the {which} {column.title.partition(' [')[0]}, {column.text(value)}{' %' if unit else ''}"
        near = [other for other, gap in self.gaps.items() if not gap.is_clear()]
        # The gap between two infinite scores is NaN.
        tied = [names[other] for other in near if self.gaps[other].mean == 0 or isnan(self.gaps[other].mean)]
        if tied:
            return f"{', '.join([names[self.best], *tied[:-1]])} and {tied[-1]} have {score}."
        rival = (near or [*self.gaps])[0]
        gap = self.gaps[rival]
        in_units = in_units and isfinite(gap.mean)
        error = "" if gap.error is None else f" ± {column.text(gap.error)}"
        size = f"{column.text(abs(gap.mean))}{error}{unit}"
        if self.is_clear:
            ahead = f", ahead of {names[rival]} by {size}" if in_units else ""
            return f"{names[self.best]} has {score}{ahead}."
        apart = f", {size}, is" if in_units else " is"
        return f"{names[self.best]} has {score}, but the difference from {names[rival]}{apart} not significant."


def ranking(column: Column, values: Sequence[float], terms: Sequence[Tensor]) -> Ranking:
    """Rank runs by a score, and compare the best with the others by paired differences over examples.

    Args:
        column: the column of the score.
        values: the score of each run.
        terms: for each run, terms ``[example]`` whose mean ranks runs as the score does.
    """
    best, *others = sorted(range(len(values)), key=lambda run: badness(column, values[run]))
    return Ranking(best, {other: estimate((terms[best] - terms[other]).tolist()) for other in others})
