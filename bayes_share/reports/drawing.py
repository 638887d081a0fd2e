"""Line drawings of a report, all in one style: a line for each run, told apart by colour and by stroke."""

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

_MOST_POINTS = 240  # of a line; more are not seen, and make the page large
SIZE = (3.5, 2.9)
"""Of a small drawing, in inches."""
TITLE_WIDTH = 40
"""Letters in a line of the title of a small drawing."""
_COLUMN, _WIDEST = 20, 44  # letters of the names in a legend of two columns, and of one


@dataclass(frozen=True)
class Line:
    """A line of a drawing.

    Args:
        name: in the legend.
        x: where its points are.
        y: how high; as many.
        style: whose colour and stroke it has: the place in the legend, from 0.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: int


def line_style(number: int) -> dict[str, Any]:
    """The colour and the stroke of the line at this place in a legend; they come again after 36."""
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
    """A function that draws lines over one another, with or without a legend.

    Args:
        title: above.
        x_label: what is to the right, with its unit.
        y_label: what is upward, with its unit.
        lines: to draw; long ones are thinned to what can be seen.
        x_limits: of the axis; as the lines have it where None.
        y_limits: the same; each end for itself.
        is_log: whether y has a logarithmic axis.
        diagonal: whether a dashed line shows where both are the same.
        points: whether each point is marked.
        whole: whether x counts something, so that only whole numbers stand at the axis.
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
    """Put a legend below a small drawing, which grows where the legend is long.

    Args:
        figure: the drawing.
        names: of runs or sets.
        handles: what stands beside each.
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
    """Indices of at most so many of `count` points, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})
