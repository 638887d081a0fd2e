"""Which figure of a column is the best, by more than chance explains."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bayes_share.evaluation.repeats import Estimate
from bayes_share.report.document import Cell, Column


def marked(column: Column, values: Sequence[Estimate | None]) -> list[Cell]:
    """Cells of which the best is marked where its lead is more than the standard error of the difference.

    The errors are taken to be independent; that of a difference on the same images is smaller than this, if anything.
    Where they are not known, none is marked.
    """
    there = sorted((badness(column, value.mean), i) for i, value in enumerate(values) if value is not None)
    cells = [Cell(None) if value is None else Cell(value.mean, value.error) for value in values]
    if len(there) > 1:
        (first, best), (second, next_best) = there[:2]
        errors = [cells[i].error for i in (best, next_best)]
        if second - first > math.hypot(*(math.inf if error is None else error for error in errors)):
            cells[best] = replace(cells[best], is_best=True)
    return cells


def badness(column: Column, value: Any) -> float:
    """A value of a column, turned so that less is better."""
    return -value if column.better == "higher" else value
