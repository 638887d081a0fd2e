"""Marking the significantly best value of a column."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bayes_share.evaluation.seed_statistics import Estimate
from bayes_share.reports.document import Cell, Column

_CLEAR = 1.96  # standard errors


def marked(column: Column, values: Sequence[Estimate | None]) -> list[Cell]:
    """Make cells, and mark the best one if its lead over every other exceeds 1.96 standard errors of the difference.

    Of two equally good runs, one is marked in about 5 % of cases. The errors are treated as independent, which is
    conservative for scores on the same images. Nothing is marked if an error is unknown.
    """
    cells = [Cell(None) if value is None else Cell(value.mean, value.error) for value in values]
    there = [(badness(column, value.mean), i) for i, value in enumerate(values) if value is not None]
    if len(there) > 1:
        (least, best), *others = sorted(there)
        if all(more - least > _CLEAR * _error_of_difference(cells[best], cells[other]) for more, other in others):
            cells[best] = replace(cells[best], is_best=True)
    return cells


def _error_of_difference(*cells: Cell) -> float:
    return math.hypot(*(math.inf if cell.error is None else cell.error for cell in cells))


def badness(column: Column, value: Any) -> float:
    """Return a value of a column, negated if higher is better, so that lower is always better."""
    return -value if column.better == "higher" else value
