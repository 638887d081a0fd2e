"""The Pareto front, and a figure of scores against stored parameters."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from bayes_share.errors import InputError
from bayes_share.evaluation.convergence_curves import COLOURS
from bayes_share.evaluation.seed_statistics import Estimate
from bayes_share.evaluation.style import check_picture, label, save_figure, styled
from bayes_share.io.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_GREY = "#5A5A5A"
_LETTERS = 42  # characters in a line of text above or below a panel
_LONGEST = 40  # maximum length of a network's name, in characters
_LETTERS_OF_LEGEND = 16  # characters of the legend per inch
_HANDLE = 4  # width of a legend handle, in characters
_WORST = 1.5  # a score above this multiple of the worst plain network is drawn at the upper edge, with its value
_WIDEST = 8.0  # ratio of the largest to the smallest value above which the y axis is logarithmic


@dataclass(frozen=True)
class Spot:
    """A network in the figure, with its size and scores.

    Args:
        label: its name.
        parameters: the number of stored parameters, at least 1.
        scores: scores by measure; lower is better.
    """

    label: str
    parameters: int
    scores: Mapping[str, Estimate]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the points that no other point dominates.

    A point dominates another one if it is at least as good in both values and better in one of them.

    Args:
        points: pairs of values; lower is better.

    Returns:
        The indices of the points, sorted by the first value. Equal points are all included.

    Raises:
        InputError: if a value is NaN.

    >>> pareto_front([(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0)])
    [0, 1, 3]
    """
    for index, point in enumerate(points):
        if any(math.isnan(number) for number in point):
            raise InputError(f"point {index} of the Pareto front is not a pair of numbers: {tuple(point)}")
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: points[index]):
        last = points[front[-1]] if front else None
        if last is None or points[index][1] < last[1] or points[index] == last:
            front.append(index)
    return front


def frontier_picture(
    plain: Sequence[Spot],
    sharing: Mapping[str, Sequence[Spot]],
    measures: Mapping[str, str],
    title: str,
    path: str | Path,
) -> None:
    """Draw a panel for each measure against stored parameters.

    Plain networks are connected by a line and marked by letters. For networks that share weights, the colour shows the
    kind of sharing and the marker the network. Error bars are ± one standard error. Rings mark the Pareto front of the
    means. A network much worse than all plain ones is drawn at the upper edge, with its score. The output is
    deterministic.

    Args:
        plain: networks that share nothing, at least one.
        sharing: networks that share weights, by the name of the kind of sharing.
        measures: labels of the y axes, by the names of the scores.
        title: title of the figure.
        path: a path ending in ``.png`` or ``.svg``, written atomically.

    Raises:
        InputError: if there is no plain network or no measure, there are more networks or kinds than markers or
            colours, or the suffix is another one.
        RunError: if the file cannot be written.
    """
    check_picture(path)
    if not plain or not measures:
        raise InputError(f"{path}: there are no plain networks or no measures to draw")
    if len(plain) > len(ascii_lowercase):
        raise InputError(f"{path}: a picture can show at most {len(ascii_lowercase)} plain networks, not {len(plain)}")
    if len(sharing) >= len(COLOURS):
        raise InputError(f"{path}: a picture can show at most {len(COLOURS) - 1} kinds of sharing, not {len(sharing)}")
    if (most := max(map(len, sharing.values()), default=0)) > len(_MARKERS):
        raise InputError(f"{path}: a kind of sharing has at most {len(_MARKERS)} networks, not {most}")

    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    styles: list[tuple[Spot, dict[str, Any]]] = [
        (spot, {"color": colour, "marker": marker})
        for spots, colour in zip(sharing.values(), COLOURS, strict=False)
        for spot, marker in zip(spots, _MARKERS, strict=False)
    ]
    line: dict[str, Any] = {"color": "black", "marker": ".", "markersize": 5, "linewidth": 1.0}
    ring: dict[str, Any] = {
        "marker": "o",
        "markersize": 11,
        "markerfacecolor": "none",
        "markeredgecolor": _GREY,
        "linestyle": "none",
    }
    with styled():
        names = ["plain networks", *(label(spot.label, _LONGEST, 1) for spot, _ in styles), "Pareto front"]
        width, lettered = max(4.2, 3.7 * len(measures)), _lettered(plain, _LETTERS * len(measures))
        columns = max(1, min(4, int(_LETTERS_OF_LEGEND * width) // (max(map(len, names)) + _HANDLE)))
        height = 4.2 + 0.19 * math.ceil(len(names) / columns) + 0.15 * max(0, lettered.count("\n") - 1)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(label(title, _LETTERS * len(measures)))
        for axes, (measure, name) in zip(
            figure.subplots(1, len(measures), squeeze=False)[0], measures.items(), strict=True
        ):
            top = _WORST * max(spot.scores[measure].mean for spot in plain)
            everything = [*plain, *(spot for spot, _ in styles)]
            shown = [
                spot for spot in everything if not spot.scores[measure].mean > top
            ]  # keeps NaN, which `pareto_front` reports
            _draw_plain(axes, plain, measure, line)
            for spot, style in styles:
                draw = _draw_bar if spot in shown else _draw_beyond
                draw(axes, spot, measure, {**style, "markersize": 5.5, "linestyle": "none"})
            _draw_front(axes, everything, shown, measure, ring)
            axes.set_ylabel(label(name, _LETTERS))
            _set_scales(axes, shown, measure)
        handles = [
            Line2D([], [], **line),
            *(Line2D([], [], linestyle="none", markersize=5.5, **style) for _, style in styles),
            Line2D([], [], **{**ring, "markersize": 9}),
        ]
        figure.legend(
            handles,
            names,
            title=lettered,
            title_fontsize=8,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=8,
        )
        save_figure(figure, Path(path))


def _lettered(plain: Sequence[Spot], width: int) -> str:
    """Return the key to the letters of the plain networks."""
    ordered = sorted(plain, key=lambda spot: spot.parameters)
    named = (f"{a} {printable(spot.label, _LONGEST)}" for a, spot in zip(ascii_lowercase, ordered, strict=False))
    return textwrap.fill("plain networks: " + ", ".join(named), width)


def _draw_plain(axes: "Axes", plain: Sequence[Spot], measure: str, style: Mapping[str, Any]) -> None:
    from matplotlib.patheffects import withStroke

    ordered = sorted(plain, key=lambda spot: spot.parameters)
    axes.plot([spot.parameters for spot in ordered], [spot.scores[measure].mean for spot in ordered], **style)
    for letter, spot in zip(ascii_lowercase, ordered, strict=False):
        _draw_bar(axes, spot, measure, {"color": style["color"], "marker": "none"})
        at = (spot.parameters, spot.scores[measure].mean)
        text = axes.annotate(letter, at, (-4, 2), textcoords="offset points", ha="right", fontsize=8, zorder=5)
        text.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _draw_bar(axes: "Axes", spot: Spot, measure: str, style: Mapping[str, Any]) -> None:
    score = spot.scores[measure]
    axes.errorbar(spot.parameters, score.mean, yerr=score.error or 0.0, elinewidth=0.8, capsize=1.5, **style)


def _draw_beyond(axes: "Axes", spot: Spot, measure: str, style: Mapping[str, Any]) -> None:
    """Draw a network at the upper edge of the axes, with an arrow and its score."""
    score = spot.scores[measure]
    to_edge = axes.get_xaxis_transform()
    axes.plot(spot.parameters, 0.965, transform=to_edge, **style)
    text = f"\N{UPWARDS ARROW} {score.mean:.3g}" + ("" if score.error is None else f" ± {score.error:.2g}")
    at = (spot.parameters, 0.965)
    axes.annotate(
        text, at, (5, 0), xycoords=to_edge, textcoords="offset points", va="center", fontsize=8, color=style["color"]
    )


def _draw_front(
    axes: "Axes", spots: Sequence[Spot], shown: Sequence[Spot], measure: str, style: Mapping[str, Any]
) -> None:
    points = [(float(spot.parameters), round(spot.scores[measure].mean, 12)) for spot in spots]  # equal up to rounding
    front = [spots[index] for index in pareto_front(points) if spots[index] in shown]
    axes.plot([spot.parameters for spot in front], [spot.scores[measure].mean for spot in front], **style)


def _set_scales(axes: "Axes", spots: Sequence[Spot], measure: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = [spot.scores[measure].mean for spot in spots]
    axes.set_xscale("log")
    axes.set_xlabel("stored parameters")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(float(value))))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.08)
    if 0 < _WIDEST * min(values) < max(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)


def short_count(count: float) -> str:
    """Format a number of parameters for an axis.

    >>> [short_count(count) for count in (500.0, 5e3, 2e5, 1.5e6)]
    ['500', '5k', '200k', '1.5M']
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
