"""Forest plots of rank-1 factors: the posterior interval of each channel's factor for each member.

They are drawn with matplotlib, because the interface of arviz's forest plot changed in version 1.0.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.style import check_picture, label, save_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_PER_ROW = 4
_TITLE_WIDTH = 30
_MEMBERS = 6
# From the Okabe-Ito palette; markers distinguish the members in greyscale.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_QUANTILES = (0.03, 0.25, 0.5, 0.75, 0.97)


def factor_forest(
    factors: Mapping[str, Float[Tensor, "draw member ..."]], path: str | Path, num_channels: int = 12
) -> None:
    """Draw a panel for each factor, with a row for each channel and an interval for each of the first 6 members.

    The thin line covers 94 % of the draws and the thick line 50 %; the marker is the median. A single draw is shown as
    a marker only. The output is deterministic.

    Args:
        factors: factors by name, ``[draw, member, channel]``, from `bayes_share.inference.draws.factors`.
        path: a path ending in ``.png`` or ``.svg``, written atomically.
        num_channels: the maximum number of channels in a panel; they are evenly spaced.

    Raises:
        InputError: if there are no factors, the axes are other ones, a value is not finite, `num_channels` is less than
            1, or the suffix is another one.
        RunError: if the file cannot be written.
    """
    check_picture(path)
    save_figure(forest_drawing(factors, num_channels), Path(path))


def forest_drawing(factors: Mapping[str, Float[Tensor, "draw member ..."]], num_channels: int = 12) -> "Figure":
    """Draw the figure that `factor_forest` writes.

    Args:
        factors: factors by name, ``[draw, member, channel]``.
        num_channels: the maximum number of channels in a panel.

    Raises:
        InputError: if there are no factors, the axes are other ones, a value is not finite, or `num_channels` is less
            than 1.
    """
    if not factors:
        raise InputError("there are no rank-1 factors to draw")
    if num_channels < 1:
        raise InputError(f"num_channels must be at least 1, and is {num_channels}")
    for name, values in factors.items():
        if values.ndim != 3 or not values.numel():
            raise InputError(
                f"{name} must have the axes [draw, member, channel], and has the shape {list(values.shape)}"
            )
        if not bool(values.isfinite().all()):
            raise InputError(f"{name} has values that are not finite")

    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = math.ceil(len(factors) / _PANELS_PER_ROW)
    columns = math.ceil(len(factors) / rows)
    members = min(_MEMBERS, max(values.shape[1] for values in factors.values()))
    height = 0.12 * members * min(num_channels, max(values.shape[2] for values in factors.values())) + 1.0
    with styled():
        figure = Figure(figsize=(2.7 * columns + 0.5, max(2.2, height) * rows + 0.4), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, (name, values) in zip(panels, factors.items(), strict=False):
            _draw(axes, name, values.detach().double().cpu(), num_channels)
        for axes in panels[len(factors) :]:
            axes.set_visible(False)
        legend = [
            Line2D([], [], color=_COLOURS[member], marker=_MARKERS[member], markersize=4, label=f"member {member}")
            for member in range(members)
        ]
        figure.legend(handles=legend, loc="outside lower center", ncols=min(members, 2 * columns), frameon=False)
    return figure


def _draw(axes: "Axes", name: str, values: Float[Tensor, "draw member channel"], num_channels: int) -> None:
    channels = values.shape[2]
    evenly = torch.linspace(0, channels - 1, min(num_channels, channels), dtype=torch.float64)
    shown = [round(place) for place in evenly.tolist()]
    quantiles = values[..., shown].quantile(torch.tensor(_QUANTILES, dtype=torch.float64), dim=0)
    members = min(_MEMBERS, values.shape[1])
    for member in range(members):
        low, lower, middle, upper, high = quantiles[:, member].numpy()
        places = [row + 0.7 * ((member + 0.5) / members - 0.5) for row in range(len(shown))]
        colour = _COLOURS[member]
        if len(values) > 1:
            axes.hlines(places, low, high, color=colour, linewidth=0.8)
            axes.hlines(places, lower, upper, color=colour, linewidth=2.2)
        axes.plot(middle, places, linestyle="none", color=colour, marker=_MARKERS[member], markersize=3.2)
    axes.set_yticks(range(len(shown)), [str(channel) for channel in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=True, axis="x", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_ylabel("channel")
    part = "" if len(shown) == channels else f"\n{len(shown)} of {channels} channels"
    axes.set_title(f"{label(name, _TITLE_WIDTH)}{part}")
