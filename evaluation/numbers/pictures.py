"""Figures for predictions of numbers. matplotlib is imported lazily, and its global state is not changed."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers.central_intervals import central_interval
from bayes_share.evaluation.numbers.forecast import Forecast, check_targets
from bayes_share.evaluation.style import check_picture, label, save_figure, styled
from bayes_share.models.predictive import Predictive

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#5A5A5A"  # from the Okabe-Ito palette
_BAND: Any = {"color": "#BBBBBB", "alpha": 0.6, "linewidth": 0, "label": "95 % of calibrated forecasts"}
_CALIBRATED: Any = {"linestyle": "--", "color": "black", "linewidth": 1, "label": "calibrated"}
_PANELS_PER_ROW = 4
_NARROW = 5  # figure width in inches up to which the legend has two columns
_MOST_EXAMPLES = 200  # maximum number of intervals in a figure


def save_picture(path: str | Path, draw: Callable[[], "Figure"]) -> None:
    """Draw a figure and write it to a file.

    Args:
        path: a path ending in ``.png`` or ``.svg``, written atomically.
        draw: a function that returns the figure, such as ``lambda: pit_drawing({"mine": values})``.

    Raises:
        InputError: if the suffix is another one, or `draw` raises InputError.
        RunError: if the file cannot be written.
    """
    check_picture(path)
    save_figure(draw(), Path(path))


def pit_drawing(pits: Mapping[str, Float[Tensor, "*target"]], bins: int = 10, with_legend: bool = True) -> "Figure":
    """Draw a histogram of PIT values for each run, with a band that contains a bar for 95 % of calibrated forecasts.

    A U shape indicates an overconfident forecast, a hump an underconfident one, and a slope a biased one (Gneiting et
    al. 2007). The band is the pointwise binomial band for independent targets.

    Args:
        pits: results of `bayes_share.evaluation.numbers.pit` by panel title.
        bins: the number of bins of equal width.
        with_legend: whether to add a legend.

    Raises:
        InputError: if there are no runs or values, or `bins` is less than 1.
    """
    if bins < 1:
        raise InputError(f"a histogram requires at least 1 bin, not {bins}")
    from scipy.stats import binom

    with styled():
        figure, panels = _panels(pits)
        for axes, (name, values) in zip(panels, pits.items(), strict=False):
            flat = values.detach().double().flatten().cpu()
            share = torch.histc(flat, bins, 0, 1) * bins / len(flat)
            low, high = (float(binom.ppf(level, len(flat), 1 / bins)) * bins / len(flat) for level in (0.025, 0.975))
            left = torch.arange(bins).double() / bins
            axes.bar(left.numpy(), share.numpy(), 1 / bins, align="edge", color=_BLUE, edgecolor="white", label="runs")
            axes.axhspan(low, high, zorder=2, **_BAND)
            axes.axhline(1, zorder=3, **_CALIBRATED)
            axes.set(xlim=(0, 1), xlabel="PIT", title=label(name, 30))
        panels[0].set_ylabel("density")
        if with_legend:
            _legend(figure, panels[0], skip="runs")
    return figure


def coverage_drawing(pits: Mapping[str, Float[Tensor, "*target"]], with_legend: bool = True) -> "Figure":
    """Draw the observed against the nominal coverage of central intervals, with a binomial band.

    A curve below the diagonal indicates an overconfident forecast. The band is the pointwise 95 % band for independent
    targets.

    Args:
        pits: results of `bayes_share.evaluation.numbers.pit` by panel title.
        with_legend: whether to add a legend.

    Raises:
        InputError: if there are no runs or values.
    """
    from scipy.stats import binom

    levels = torch.linspace(0, 1, 101, dtype=torch.float64)
    with styled():
        figure, panels = _panels(pits)
        for axes, (name, values) in zip(panels, pits.items(), strict=False):
            within = (2 * values.detach().double().flatten().cpu() - 1).abs().sort().values
            share = torch.searchsorted(within, levels, right=True) / len(within)
            low, high = (binom.ppf(end, len(within), levels.numpy()) / len(within) for end in (0.025, 0.975))
            axes.fill_between(levels.numpy(), low.clip(0), high, **_BAND)
            axes.plot([0, 1], [0, 1], **_CALIBRATED)
            axes.plot(levels.numpy(), share.numpy(), color=_BLUE, label="observed")
            axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="nominal coverage", title=label(name, 30), aspect="equal")
        panels[0].set_ylabel("observed coverage")
        if with_legend:
            _legend(figure, panels[0])
    return figure


def intervals_drawing(
    forecast: Forecast, targets: Num[Tensor, "example *output"], coverage: float = 0.9, title: str = ""
) -> "Figure":
    """Draw central intervals sorted by their median, with the targets. At most 200, evenly spaced, are drawn.

    Args:
        forecast: the predictive distributions.
        targets: the observed targets.
        coverage: the nominal coverage of the intervals.
        title: title of the figure; may be empty.

    Raises:
        InputError: if targets are not finite or have another shape, or the coverage is out of range.
    """
    from matplotlib.figure import Figure

    found = check_targets(forecast, targets).flatten().cpu()
    low, high = central_interval(forecast, coverage).flatten(1).cpu()
    median = forecast.quantile([0.5]).flatten().cpu()
    order = median.argsort()
    count = min(len(order), _MOST_EXAMPLES)
    order = order[torch.linspace(0, len(order) - 1, count).round().long()]
    y, low, high, median = (each[order] for each in (found, low, high, median))
    inside, place = (low <= y) & (y <= high), torch.arange(count)
    with styled():
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        name = f"central {100 * coverage:g} % interval"
        axes.vlines(
            place.numpy(), low.numpy(), high.numpy(), color="#A8D8F4", linewidth=max(1, 300 / count), label=name
        )
        axes.plot(place.numpy(), median.numpy(), color="black", linewidth=1, label="median")
        for which, colour, mark, what in ((inside, _BLUE, "o", "inside"), (~inside, _ORANGE, "X", "outside")):
            text = f"target {what} ({int(which.sum())})"
            axes.scatter(place[which].numpy(), y[which].numpy(), s=12, color=colour, marker=mark, zorder=3, label=text)
        drawn = f"{count} of {len(found)} targets" if count < len(found) else "targets"
        axes.set(xlabel=f"{drawn}, sorted by predicted median", ylabel="target", title=label(title, 60))
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def noise_drawing(predictive: Predictive, title: str = "") -> "Figure":
    """Draw the aleatoric against the epistemic standard deviation of each target.

    Args:
        predictive: the predictive distributions.
        title: title of the figure; may be empty.

    Raises:
        InputError: if a variance is not finite.
    """
    from matplotlib.figure import Figure

    epistemic, aleatoric = (each.sqrt().flatten().cpu() for each in (predictive.epistemic, predictive.aleatoric))
    if not bool((epistemic + aleatoric).isfinite().all()):
        raise InputError("a standard deviation that is not finite cannot be drawn")
    end = 1.05 * max(epistemic.max().item(), aleatoric.max().item())
    with styled():
        figure = Figure(figsize=(4, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.scatter(epistemic.numpy(), aleatoric.numpy(), s=8, alpha=0.5, color=_BLUE, linewidths=0)
        axes.plot([0, end], [0, end], linestyle="--", color=_GREY, linewidth=1, label="equal")
        axes.set(xlim=(0, end), ylim=(0, end), aspect="equal")
        axes.set(xlabel="epistemic standard deviation", ylabel="aleatoric standard deviation", title=label(title, 30))
        figure.legend(loc="outside lower center", frameon=False)
    return figure


def _panels(pits: Mapping[str, Tensor]) -> tuple["Figure", list["Axes"]]:
    """Create a panel for each run, and hide unused panels."""
    if not pits:
        raise InputError("there are no runs to draw")
    empty = next((name for name, values in pits.items() if not values.numel()), None)
    if empty is not None:
        raise InputError(f"there are no PIT values of {label(empty, 60, 1)}")
    from matplotlib.figure import Figure

    rows = math.ceil(len(pits) / _PANELS_PER_ROW)
    columns = math.ceil(len(pits) / rows)
    figure = Figure(figsize=(max(4.2, 2.7 * columns + 0.5), 2.9 * rows + 0.5), layout="constrained")
    panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in panels[len(pits) :]:
        axes.set_visible(False)
    return figure, panels


def _legend(figure: "Figure", axes: "Axes", skip: str = "") -> None:
    handles = [(mark, text) for mark, text in zip(*axes.get_legend_handles_labels(), strict=True) if text != skip]
    marks, texts = zip(*handles, strict=True)
    columns = 3 if figure.get_figwidth() > _NARROW else 2
    figure.legend(marks, texts, loc="outside lower center", ncols=columns, frameon=False)
