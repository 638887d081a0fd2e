"""Dot plots with a categorical x axis, such as classes."""

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
_SPREAD = 0.6  # width over which the dots of a category are spread, as a share of the distance between categories
_MOST_WITH_BARS, _MOST_NAMES = 20, 12  # maximum number of categories with error bars, and of tick labels


@dataclass(frozen=True)
class Dots:
    """A series of values, one for each category.

    Args:
        name: name in the legend.
        y: the values.
        low: lower ends of their intervals.
        high: upper ends of their intervals.
        style: index of colour and marker, from 0.
    """

    name: str
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    style: int


def dot_drawing(
    title: str, x_label: str, y_label: str, places: Sequence[str], dots: Sequence[Dots], aim: float
) -> Callable[[bool], "Figure"]:
    """Return a function that draws series of dots with intervals side by side for each category.

    Args:
        title: title of the drawing.
        x_label: label of the x axis.
        y_label: label of the y axis, with the unit.
        places: names of the categories, from left to right; not all are labelled if there are many.
        dots: the series; NaN marks a missing value.
        aim: the target value, drawn as a dashed line.
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
