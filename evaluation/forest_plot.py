"""Forest plots of rank-1 factors: where each channel's factor is under the draws of a posterior, member by member.

Drawn with matplotlib: arviz's own forest takes other arguments, and gives another object, since its version 1.0.
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
# Of Okabe and Ito's palette, with markers that tell members apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_QUANTILES = (0.03, 0.25, 0.5, 0.75, 0.97)


def factor_forest(
    factors: Mapping[str, Float[Tensor, "draw member ..."]], path: str | Path, num_channels: int = 12
) -> None:
    """Draw a panel for each factor, with a row for each channel and in it an interval for each member.

    The thin line holds 94 % of the draws, the thick one half of them, and the marker is their median; of a single draw
    there is the marker alone. The same draws give the same bytes.

    Args:
        factors: ``[draw, member, channel]`` by name, as `bayes_share.inference.draws.factors` gives them.
        path: a file that ends in ``.png`` or ``.svg``; written as a whole or not at all.
        num_channels: rows of a panel; of more channels, so many are shown, evenly spaced. The first 6 members are.

    Raises:
        InputError: no factors, other axes, a number that is not finite, no rows, or another suffix.
        RunError: the file cannot be written.
    """
    check_picture(path)
    drawing = forest_drawing(factors, num_channels)

    save_figure(drawing, Path(path))


def forest_drawing(factors: Mapping[str, Float[Tensor, "draw member ..."]], num_channels: int = 12) -> "Figure":
    """What `factor_forest` writes, as a figure.

    Args:
        factors: ``[draw, member, channel]`` by name.
        num_channels: rows of a panel.

    Raises:
        InputError: no factors, other axes, a number that is not finite, or no rows.
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
            raise InputError(f"{name} has numbers that are not finite")

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
    of = values.shape[2]
    shown = [round(place) for place in torch.linspace(0, of - 1, min(num_channels, of), dtype=torch.float64).tolist()]
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
    part = "" if len(shown) == of else f"\n{len(shown)} of {of} channels"
    axes.set_title(f"{label(name, _TITLE_WIDTH)}{part}")
