"""Dot drawings of a report: figures at places that have names and no order, such as classes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayes_share.evaluation.style import label, styled
from bayes_share.reports.drawing import SIZE, TITLE_WIDTH, add_legend, line_style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_SPREAD = 0.6  # of the way from one place to the next, over which the dots of a place are spread
_MOST_WITH_BARS, _MOST_NAMES = 20, 12  # places


@dataclass(frozen=True)
class Dots:
    """Figures of one kind, one at each place of a drawing.

    Args:
        name: in the legend.
        y: how high.
        low: lower ends of their intervals; as many.
        high: upper ends.
        style: whose colour and mark they have: the place in the legend, from 0.
    """

    name: str
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    style: int


def dot_drawing(
    title: str, x_label: str, y_label: str, places: Sequence[str], dots: Sequence[Dots], aim: float
) -> Callable[[bool], "Figure"]:
    """A function that draws dots with their intervals side by side at places that have names, such as classes.

    Args:
        title: above.
        x_label: what the places are.
        y_label: what is upward, with its unit.
        places: their names, from left to right; of many some are written.
        dots: a figure for each place, NaN where there is none.
        aim: where a dashed line shows what is wanted.
    """

    def draw(with_legend: bool) -> "Figure":
        from matplotlib.figure import Figure

        with styled():
            figure = Figure(figsize=SIZE, layout="constrained")
            axes = figure.subplots()
            axes.axhline(aim, linestyle="--", color="#000000", linewidth=0.9)
            handles: list[Artist] = []
            are_many = len(places) > _MOST_WITH_BARS
            for number, one in enumerate(dots):
                apart = _SPREAD * ((number + 0.5) / len(dots) - 0.5)
                x = [place + apart for place in range(len(places))]
                colour = line_style(one.style)["color"]
                if not are_many:
                    axes.vlines(x, one.low, one.high, color=colour, linewidth=0.9)
                mark = _MARKS[one.style % len(_MARKS)]
                handles += axes.plot(
                    x, one.y, color=colour, linestyle="", marker=mark, markersize=2 if are_many else 3.5
                )
            every = range(0, len(places), math.ceil(len(places) / _MOST_NAMES))
            axes.set_xticks([*every], [label(places[place], 12, 1) for place in every])
            axes.set_xlim(-0.6, len(places) - 0.4)
            axes.set_title(label(title, TITLE_WIDTH))
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            axes.grid(visible=True, axis="y", color="#DDDDDD", linewidth=0.5)
            if with_legend:
                add_legend(figure, [one.name for one in dots], handles)
        return figure

    return draw
