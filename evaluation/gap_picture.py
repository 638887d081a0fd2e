"""A figure of the closed share of a gap against cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_share.errors import InputError
from bayes_share.evaluation.convergence_curves import COLOURS
from bayes_share.evaluation.gap import Share
from bayes_share.evaluation.style import check_picture, label, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOWEST, _HIGHEST = -0.6, 1.6  # shares outside this range are drawn at the edge, as triangles
_RADIUS = 7.0  # radius of a numbered disc, in points
_ASIDE = 3.5  # minimum horizontal distance between intervals, in points
_LONGEST = 60  # maximum length of a name, in characters
_WIDTH, _HEIGHT = 11.0, 4.8  # inches
_GREY = "#8A8A8A"


@dataclass(frozen=True)
class Mark:
    """A method in the figure.

    Args:
        label: its name.
        family: the family of methods that it belongs to; each family has a colour.
        cost: its cost, above 0.
        share: the share of the gap that it closes.
    """

    label: str
    family: str
    cost: float
    share: Share


def gap_picture(marks: Sequence[Mark], cost: str, share: str, title: str, path: str | Path) -> None:
    """Draw shares against costs as numbered discs with intervals; the legend lists names and shares.

    Overlapping discs and intervals are moved apart along the cost axis, with a short line to the true position. A share
    outside the range of the axis is a triangle at its edge. The output is deterministic.

    Args:
        marks: the methods, at least one.
        cost: label of the horizontal axis.
        share: label of the vertical axis.
        title: title of the figure.
        path: a path ending in ``.png`` or ``.svg``, written atomically.

    Raises:
        InputError: if there are no marks, a cost is not above 0, there are too many families, or the suffix is another
            one.
        RunError: if the file cannot be written.
    """
    check_picture(path)
    if not marks:
        raise InputError(f"{path}: there are no shares to draw")
    if wrong := [mark for mark in marks if not 0 < mark.cost < math.inf]:
        raise InputError(f"{path}: costs must be above 0, and the cost of {wrong[0].label} is {wrong[0].cost}")
    families = list(dict.fromkeys(mark.family for mark in marks))
    if len(families) > len(COLOURS):
        raise InputError(f"{path}: a picture can show at most {len(COLOURS)} families, not {len(families)}")
    colours = dict(zip(families, COLOURS, strict=False))

    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with styled():
        figure = Figure(figsize=(_WIDTH, max(_HEIGHT, 0.19 * (len(marks) + len(families)) + 1.0)), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(label(title, 100))
        _set_axes(axes, marks, cost, share)
        handles, names = [], []
        for family in families:
            handles.append(Line2D([], [], color=colours[family], marker="o", linestyle="none", markersize=7))
            names.append(family)
            for number, mark in enumerate(marks, start=1):
                if mark.family == family:
                    handles.append(Line2D([], [], linestyle="none"))
                    names.append(f"{number}  {label(mark.label, _LONGEST, 1)}: {mark.share.value:.2f}")
        figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=8, handlelength=1.0)
        figure.draw_without_rendering()  # computes the layout, which `_apart` needs
        for number, (mark, place) in enumerate(zip(marks, _apart(axes, marks), strict=True), start=1):
            _draw(axes, mark, number, place, colours[mark.family])
        save_figure(figure, Path(path))


def _set_axes(axes: "Axes", marks: Sequence[Mark], cost: str, share: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    intervals = [mark.share.interval for mark in marks if mark.share.interval is not None]
    ends = [mark.share.value for mark in marks] + [end for one in intervals for end in (one.low, one.high)]
    low, high = _shown(min(ends)), _shown(max(ends))
    costs = [mark.cost for mark in marks]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) / 1.25, max(costs) * 1.25)
    axes.set_ylim(min(low, 0.0) - 0.1, max(high, 1.0) + 0.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(cost)
    axes.set_ylabel(share)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    for height in (0.0, 1.0):
        axes.axhline(height, color=_GREY, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)


def _apart(axes: "Axes", marks: Sequence[Mark]) -> list[float]:
    """Return the cost at which each disc is drawn: the free position closest to its own cost."""
    points = 72 / axes.figure.dpi
    placed: list[tuple[float, float, float, float]] = []
    found = [0.0] * len(marks)
    for index in sorted(range(len(marks)), key=lambda index: (marks[index].cost, marks[index].share.value)):
        share = marks[index].share
        heights = (share.value, *((share.interval.low, share.interval.high) if share.interval else ()))
        at = [axes.transData.transform((marks[index].cost, _shown(height))) * points for height in heights]
        x, y, low, high = at[0][0], at[0][1], min(place[1] for place in at), max(place[1] for place in at)
        steps = [0.0, *(side * step * _ASIDE for step in range(1, 80) for side in (1, -1))]
        step = next((step for step in steps if _has_room((x + step, y, low, high), placed)), 0.0)
        placed.append((x + step, y, low, high))
        found[index] = float(axes.transData.inverted().transform(((x + step) / points, y / points))[0])
    return found


def _has_room(wanted: tuple[float, float, float, float], placed: Sequence[tuple[float, float, float, float]]) -> bool:
    """Return whether a disc and its interval overlap no other one. Each is (x, y, low, high) in points."""
    x, y, low, high = wanted
    return all(
        math.hypot(x - other_x, y - other_y) > 2 * _RADIUS
        and (abs(x - other_x) >= _ASIDE or high < other_low or other_high < low)
        for other_x, other_y, other_low, other_high in placed
    )


def _draw(axes: "Axes", mark: Mark, number: int, place: float, colour: str) -> None:
    value, interval = mark.share.value, mark.share.interval
    if interval is not None:
        axes.vlines(place, _shown(interval.low), _shown(interval.high), color=colour, linewidth=1.2, zorder=2)
    axes.hlines(_shown(value), min(mark.cost, place), max(mark.cost, place), color=colour, linewidth=0.8, zorder=2)
    axes.plot(mark.cost, _shown(value), marker=".", markersize=3, color=colour, zorder=2)
    shape = "o" if _shown(value) == value else "v" if value < _LOWEST else "^"
    size = 2 * _RADIUS if shape == "o" else 2.9 * _RADIUS
    axes.plot(place, _shown(value), marker=shape, markersize=size, color=colour, markeredgecolor="white", zorder=3)
    to_middle = (0.0, {"o": 0.0, "v": 2.0, "^": -2.0}[shape])
    axes.annotate(
        str(number),
        (place, _shown(value)),
        to_middle,
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=7.5,
        color="white",
        zorder=4,
    )


def _shown(share: float) -> float:
    return min(max(share, _LOWEST), _HIGHEST)
