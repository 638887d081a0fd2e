"""Reliability diagrams. matplotlib is imported lazily, and its global state is not changed."""

import math
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.calibration import Reliability, reliability
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.scores import accuracy
from bayes_share.evaluation.style import check_picture, label, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_PER_ROW = 4
_TITLE_WIDTH = 30
# From the Okabe-Ito palette, which is safe for colour-blind readers; hatches distinguish the areas in greyscale.
_GREY = "#5A5A5A"
_ACCURACY: Any = {"facecolor": "#0072B2", "edgecolor": "white", "linewidth": 0.5, "label": "accuracy"}
_OVER: Any = {
    "facecolor": "#F5CF80",
    "edgecolor": "#8A5F00",
    "linewidth": 0.5,
    "hatch": "////",
    "label": "overconfident",
}
_UNDER: Any = {
    "facecolor": "#A8D8F4",
    "edgecolor": "#00507D",
    "linewidth": 0.5,
    "hatch": r"\\\\",
    "label": "underconfident",
}
_DIAGONAL: Any = {"linestyle": "--", "color": "black", "linewidth": 1, "label": "calibrated"}


def reliability_picture(runs: Mapping[str, Predictions], path: str | Path, bins: int = 15) -> None:
    """Draw the reliability diagrams of runs side by side.

    Each bar shows the accuracy in a bin of confidence. The hatched area is the gap between accuracy and mean
    confidence; for an underconfident bin it is part of the accuracy bar. A histogram below shows the distribution of
    the images over the bins. The ECE is the mean over images of the hatched area (Guo et al. 2017, arXiv 1706.04599,
    figure 1). For several labels, each label has a panel. The output is deterministic.

    Args:
        runs: predictions by panel title.
        path: a path ending in ``.png`` or ``.svg``, written atomically.
        bins: the number of bins of equal width, as in `bayes_share.evaluation.calibration.reliability`.

    Raises:
        InputError: if there are no runs, `bins` is less than 1, or the suffix is another one.
        RunError: if the file cannot be written.
    """
    check_picture(path)
    if not runs:
        raise InputError(f"{path}: there are no runs to draw")

    from matplotlib.figure import Figure

    count = sum(predictions.num_problems for predictions in runs.values())
    problems = chain.from_iterable(named_problems(name, predictions) for name, predictions in runs.items())
    rows = math.ceil(count / _PANELS_PER_ROW)
    columns = math.ceil(count / rows)
    with styled():
        figure = Figure(figsize=(2.7 * columns + 0.5, 3.9 * rows + 0.3), layout="constrained")
        heights = {"height_ratios": [3, 1] * rows}
        grid = figure.subplots(2 * rows, columns, sharey="row", squeeze=False, gridspec_kw=heights)
        panels = [
            (grid[2 * row, column], grid[2 * row + 1, column]) for row in range(rows) for column in range(columns)
        ]
        for (upper, lower), (name, problem) in zip(panels, problems, strict=False):
            _draw_panel(upper, lower, name, problem.log_probs.exp(), problem.labels, bins)
        for upper, lower in panels[count:]:
            upper.set_visible(False)
            lower.set_visible(False)
        for upper, lower in panels[::columns]:
            upper.set_ylabel("accuracy")
            lower.set_ylabel("examples [%]")
        _add_legend(figure, min(4, 2 * columns))
        save_figure(figure, Path(path))


def named_problems(name: str, predictions: Predictions) -> Iterator[tuple[str, Predictions]]:
    """Yield the classification problems of predictions, each with a display name.

    Args:
        name: the name of the predictions; for several labels, the label index is appended.
        predictions: logits and labels.
    """
    for number, problem in enumerate(predictions.problems()):
        yield (name if predictions.num_problems == 1 else f"{name}, label {number}"), problem


def reliability_drawing(
    name: str,
    probs: Float[Tensor, "image class"],
    labels: Int64[Tensor, "image"],
    with_legend: bool = True,
    bins: int = 15,
) -> "Figure":
    """Draw one panel of `reliability_picture` as a separate figure.

    Args:
        name: title of the panel.
        probs: probabilities; each row sums to 1.
        labels: the right classes.
        with_legend: whether to add a legend.
        bins: the number of bins of equal width.

    Raises:
        InputError: if `bayes_share.evaluation.calibration.reliability` rejects the input.
    """
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(3.0, 3.9), layout="constrained")
        upper, lower = figure.subplots(2, 1, gridspec_kw={"height_ratios": [3, 1]})
        _draw_panel(upper, lower, name, probs, labels, bins)
        upper.set_ylabel("accuracy")
        lower.set_ylabel("examples [%]")
        if with_legend:
            _add_legend(figure, 2)
    return figure


def _add_legend(figure: "Figure", columns: int) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    # New handles instead of the drawn artists, since a panel may have no overconfident or no underconfident bin.
    legend = [Patch(**_ACCURACY), Patch(**_OVER), Patch(**_UNDER), Line2D([], [], **_DIAGONAL)]
    figure.legend(handles=legend, loc="outside lower center", ncols=columns, frameon=False)


def _draw_panel(upper: "Axes", lower: "Axes", name: str, probs: Tensor, labels: Tensor, bins: int) -> None:
    result = reliability(probs, labels, bins)
    summary = f"accuracy {accuracy(probs, labels):.1%}, ECE {result.ece:.4f}"
    upper.set_title(f"{label(name, _TITLE_WIDTH)}\n{summary}")
    _draw_accuracy(upper, result)
    _draw_counts(lower, result)


def _draw_accuracy(axes: "Axes", result: Reliability) -> None:
    left, accuracy, confidence = (x.numpy(force=True) for x in (result.edges[:-1], result.accuracy, result.confidence))
    width = 1 / len(left)
    axes.bar(left, accuracy, width, align="edge", **_ACCURACY)
    for style, gap in (_OVER, accuracy < confidence), (_UNDER, accuracy > confidence):
        axes.bar(left[gap], (confidence - accuracy)[gap], width, bottom=accuracy[gap], align="edge", **style)
    axes.plot([0, 1], [0, 1], **_DIAGONAL)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.tick_params(labelbottom=False)


def _draw_counts(axes: "Axes", result: Reliability) -> None:
    share = (100 * result.count / result.count.sum()).numpy(force=True)
    left = result.edges[:-1].numpy(force=True)
    axes.bar(left, share, 1 / len(share), align="edge", color=_GREY, edgecolor="white", linewidth=0.5)
    axes.set(xlim=(0, 1), ylim=(0, 100), xlabel="confidence")
