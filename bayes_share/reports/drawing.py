"""Line plots, with lines distinguished by colour and stroke."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayes_share.evaluation.convergence_curves import COLOURS, STROKES
from bayes_share.evaluation.style import label, plain_log_scale, styled
from bayes_share.io.terminal import distinct

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

_MOST_POINTS = 240  # maximum number of points of a line, to keep the page small
SIZE = (3.5, 2.9)
"""Size of a drawing, in inches."""
TITLE_WIDTH = 40
"""Maximum length of a line of the title, in characters."""
_COLUMN, _WIDEST = 20, 44  # maximum length of names in a legend with two columns, and with one column


@dataclass(frozen=True)
class Line:
    """A line of a drawing.

    Args:
        name: name in the legend.
        x: x values of its points.
        y: y values of its points.
        style: index of colour and stroke, from 0.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int


def line_style(number: int) -> dict[str, Any]:
    """Return colour and stroke for an index. They repeat after 36."""
    lap = number // len(COLOURS)
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STROKES[(number + lap) % len(STROKES)]}


def line_drawing(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float | None, float | None] = (None, None),
    is_log: bool = False,
    diagonal: bool = False,
    points: bool = False,
    whole: bool = False,
) -> Callable[[bool], "Figure"]:
    """Return a function that draws lines, with or without a legend.

    Args:
        title: title of the drawing.
        x_label: label of the x axis, with the unit.
        y_label: label of the y axis, with the unit.
        lines: the lines; long ones are thinned.
        x_limits: limits of the x axis; None sets them from the lines.
        y_limits: limits of the y axis; each can be None.
        is_log: whether the y axis is logarithmic.
        diagonal: whether to draw the dashed line y = x.
        points: whether to mark each point.
        whole: whether the ticks of the x axis are integers.
    """

    def draw(with_legend: bool) -> "Figure":
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        with styled():
            figure = Figure(figsize=SIZE, layout="constrained")
            axes = figure.subplots()
            handles: list[Artist] = []
            for line in lines:
                chosen = thinned(len(line.x))
                x, y = [line.x[i] for i in chosen], [line.y[i] for i in chosen]
                style = line_style(line.style)
                handles += axes.plot(x, y, **style, linewidth=1.4, marker="o" if points else "", markersize=3)
            if diagonal:
                axes.plot([0, 1], [0, 1], linestyle="--", color="#000000", linewidth=0.7)
            axes.set_title(label(title, TITLE_WIDTH))
            axes.set_xlabel(x_label)
            axes.set_ylabel(y_label)
            if is_log:
                plain_log_scale(axes)
            if whole:
                axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if x_limits is not None:
                axes.set_xlim(*x_limits)
            axes.set_ylim(*y_limits)
            axes.grid(visible=True, color="#DDDDDD", linewidth=0.5)
            if with_legend:
                add_legend(figure, [line.name for line in lines], handles)
        return figure

    return draw


def add_legend(figure: "Figure", names: Sequence[str], handles: Sequence["Artist"]) -> None:
    """Add a legend below a drawing, and increase the height of the drawing for a long legend.

    Args:
        figure: the drawing.
        names: the names in the legend.
        handles: the handle of each name.
    """
    shown = distinct(names, _WIDEST)
    columns = 2 if all(len(name) <= _COLUMN for name in shown.values()) else 1
    figure.set_figheight(figure.get_figheight() + 0.16 * max(0, math.ceil(len(names) / columns) - 2))
    figure.legend(
        handles,
        [shown[name] for name in names],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        handlelength=3.2,
        fontsize=7.5,
    )


def thinned(count: int, most: int = _MOST_POINTS) -> list[int]:
    """Return at most `most` evenly spaced indices of `count` points, including the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
