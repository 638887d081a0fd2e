"""Convergence plots: validation scores of methods against epochs and training time, with error bands."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bayes_share.errors import InputError
from bayes_share.evaluation.seed_statistics import estimate
from bayes_share.evaluation.style import check_picture, label, plain_log_scale, save_figure, styled
from bayes_share.io.terminal import distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Measure = Literal["validation_accuracy", "validation_nll"]

# The Okabe-Ito palette without yellow, which is too light for lines. Strokes distinguish the lines in greyscale.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
STROKES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 3)), (0, (9, 2)))
_TITLES = {"validation_accuracy": "validation accuracy [%]", "validation_nll": "validation NLL [nat], log scale"}
_SMALLEST_NLL = 1e-6
_LETTERS = 12  # characters of the title per inch
_TITLE_WIDTH = 30  # characters in a line of a panel title
_LONGEST = 40  # maximum length of a name in the legend
_HANDLE = 8  # width of a legend handle, in characters
_WARM = 0.1  # share of the epochs that the limits of the y axis ignore, so that later values can be distinguished


@dataclass(frozen=True)
class Curve:
    """The learning curve of a method, averaged over seeds.

    Args:
        epochs: completed epochs.
        seconds: mean training time so far, in seconds.
        mean: mean of the measure.
        error: standard error of the mean; 0 for a single seed.
    """

    epochs: Sequence[float]
    seconds: Sequence[float]
    mean: Sequence[float]
    error: Sequence[float]


def curve(histories: Sequence[Sequence[Mapping[str, float]]], measure: Measure) -> Curve:
    """Average the learning curves of runs that differ only in their seed.

    Args:
        histories: for each run, a record per epoch, as in its metrics.csv.
        measure: the key of the records.

    Raises:
        InputError: if there are no runs, or their numbers of epochs differ.
    """
    if not histories or len({len(history) for history in histories}) != 1:
        raise InputError("a curve requires at least one run, and equal numbers of epochs")
    at_epochs = list(zip(*histories, strict=True))
    values = [estimate(line[measure] for line in lines) for lines in at_epochs]
    return Curve(
        epochs=[lines[0]["epoch"] + 1 for lines in at_epochs],
        seconds=[estimate(line["seconds"] for line in lines).mean for lines in at_epochs],
        mean=[value.mean for value in values],
        error=[value.error or 0.0 for value in values],
    )


def convergence_picture(
    panels: Mapping[str, Mapping[str, Curve]], measure: Measure, title: str, path: str | Path
) -> None:
    """Draw a column of two panels for each setting: against epochs, and against training time in seconds.

    Bands show ± one standard error. The limits of the y axis ignore the first tenth of the epochs, so the beginning of
    a curve may be cut off. The output is deterministic.

    Args:
        panels: for each setting, by its title, the curve of each method by name.
        measure: the measure that the curves show.
        title: title of the figure.
        path: a path ending in ``.png`` or ``.svg``, written atomically.

    Raises:
        InputError: if there are no curves, there are more methods than colours, or the suffix is another one.
        RunError: if the file cannot be written.
    """
    check_picture(path)
    methods = list(dict.fromkeys(method for curves in panels.values() for method in curves))
    if not methods:
        raise InputError(f"{path}: there are no curves to draw")
    if len(methods) > len(COLOURS):
        raise InputError(f"{path}: a picture can show at most {len(COLOURS)} methods, not {len(methods)}")

    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    styles: dict[str, Any] = {
        method: {"color": colour, "linestyle": stroke}
        for method, colour, stroke in zip(methods, COLOURS, STROKES, strict=False)
    }
    with styled():
        width, names = max(5.0, 2.6 * len(panels) + 0.6), list(distinct(methods, _LONGEST).values())
        legend_columns = max(1, min(len(names), int(_LETTERS * width) // (max(map(len, names)) + _HANDLE)))
        height = 5.6 + 0.2 * (math.ceil(len(names) / legend_columns) - 1)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.suptitle(label(title, int(_LETTERS * width)))
        grid = figure.subplots(2, len(panels), sharey=True, squeeze=False)
        for column, (name, curves) in enumerate(panels.items()):
            for row, against in enumerate(("epochs", "seconds")):
                for method, one in curves.items():
                    _draw(grid[row, column], one, getattr(one, against), measure, styles[method])
                grid[row, column].set_xlim(left=0)  # after all lines are drawn, since it fixes the right limit
            grid[0, column].set_title(label(name, _TITLE_WIDTH))
            grid[0, column].set_xlabel("epochs")
            grid[1, column].set_xlabel("training time [s]")
        for row in range(2):
            grid[row, 0].set_ylabel(_TITLES[measure])
        _set_limits(grid[0, 0], [one for curves in panels.values() for one in curves.values()], measure)
        handles = [Line2D([], [], linewidth=1.6, **styles[method]) for method in methods]
        figure.legend(handles, names, loc="outside lower center", ncols=legend_columns, frameon=False, handlelength=3.5)
        save_figure(figure, Path(path))


def _draw(axes: "Axes", one: Curve, x: Sequence[float], measure: Measure, style: Mapping[str, Any]) -> None:
    mean = [_shown(measure, value) for value in one.mean]
    low = [_shown(measure, value - error) for value, error in zip(one.mean, one.error, strict=True)]
    high = [_shown(measure, value + error) for value, error in zip(one.mean, one.error, strict=True)]
    axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    axes.plot(x, mean, linewidth=1.4, **style)
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.5)


def _set_limits(axes: "Axes", curves: Sequence[Curve], measure: Measure) -> None:
    settled = [
        _shown(measure, value + sign * error)
        for one in curves
        for value, error in list(zip(one.mean, one.error, strict=True))[math.ceil(_WARM * len(one.mean)) - 1 :]
        for sign in (-1, 1)
    ]
    low, high = min(settled), max(settled)
    if measure == "validation_nll":
        least = min(_shown(measure, value) for one in curves for value in one.mean)
        low = max(low, least / 2)  # a wide band must not stretch the axis
        plain_log_scale(axes)
        axes.set_ylim(low / 1.05, high * 1.05)
    else:
        margin = 0.04 * (high - low) or 1.0
        axes.set_ylim(low - margin, min(100.0, high + margin))


def _shown(measure: Measure, value: float) -> float:
    """Convert an accuracy to percent, or clip an NLL from below for the log scale."""
    return 100 * value if measure == "validation_accuracy" else max(value, _SMALLEST_NLL)
