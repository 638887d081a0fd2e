"""Which figure of a column is the best, by more than chance."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bayes_share.evaluation.seed_statistics import Estimate
from bayes_share.reports.document import Cell, Column

_CLEAR = 1.96  # standard errors


def marked(column: Column, values: Sequence[Estimate | None]) -> list[Cell]:
    """Cells of which the best is marked where it leads every other by more than 1.96 standard errors of the difference.

    Of two equal runs one is marked in about 5 % of cases. The errors are taken to be independent; that of a difference
    on the same images is smaller than this, if anything. Where one is not known, none is marked.
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
    """A value of a column, turned so that less is better."""
    return -value if column.better == "higher" else value
