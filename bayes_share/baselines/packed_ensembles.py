"""Packed ensembles: a wider network that is cut into several."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from bayes_share.baselines.boundary_layers import ends_of
from bayes_share.baselines.resizing import drawn_like, resized, shapes_of
from bayes_share.errors import InputError
from bayes_share.layers.factor_parameters import check_ensemble_size
from bayes_share.layers.way import Way
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.strategy import Strategy

_WHAT = "packed()"


def packed(
    net: nn.Module,
    ensemble_size: int = 4,
    alpha: int | float = 2.0,
    gamma: int = 1,
    *,
    example: Tensor,
    strategy: Strategy = "auto",
    way: Way = "auto",
) -> Ensemble:
    """A packed ensemble of a network (Laurent et al. 2023, arXiv 2210.09184), to train from scratch.

    The network is made `alpha` times as wide and cut into `ensemble_size` networks by grouped convolutions. So each
    member is the network with ``alpha / ensemble_size`` times the channels, and shares nothing with the others: with
    ``alpha=2`` and four members each has half the width, and all of them together have about as many parameters as the
    network. That is how it is made here: an `Ensemble` whose members have all of their parameters of their own. The
    first layers take the whole input, and the last ones give all outputs.

    Args:
        net: made of linear layers, convolutions and norms of torch, freshly initialised: the numbers of each member are
            drawn at random from those that its layers have, scaled to their new fan-in.
        ensemble_size: members.
        alpha: the width of all members together, over that of the network.
        gamma: groups that the convolutions of each member are cut into, but for the first and last layers. Numbers of
            channels are rounded up to a multiple of it.
        example: a batch ``[batch, channel, ...]``, two images are enough: the network runs on it once.
        strategy: as of `ensemble`.
        way: as of `ensemble`.

    Returns:
        As of `ensemble`: called on ``[batch, ...]``, it gives ``[member, batch, ...]``. `fold` gives a member as a
        plain network.

    Raises:
        InputError: a network with other layers, or whose widths are fixed in other places too; an `alpha` or `gamma`
            that is not positive.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> members = packed(net, ensemble_size=4, alpha=2, example=torch.zeros(2, 8))
    >>> members.network[0].weight.shape, members(torch.zeros(5, 8)).shape
    (torch.Size([4, 8, 8]), torch.Size([4, 5, 3]))
    """
    check_ensemble_size(ensemble_size)
    if not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise InputError(f"alpha, the width of all members together, must be positive, and is {alpha!r}")
    if not isinstance(gamma, int) or gamma < 1:
        raise InputError(
            f"gamma, the groups of a member's convolutions, must be a whole number of at least 1, not {gamma!r}"
        )
    ends = ends_of(net, example)

    def outputs(name: str, before: int) -> int:
        if name in ends.last:
            return before
        return max(1, math.ceil(int(before * alpha) / (ensemble_size * gamma))) * gamma

    def groups(name: str) -> int:
        return 1 if name in (*ends.first, *ends.last) else gamma

    member = resized(net, example, outputs, groups, _WHAT)
    if shapes_of(member, example) != shapes_of(net, example):
        raise InputError(
            f"{_WHAT} keeps the outputs of the last linear layers or convolutions, and this {type(net).__name__} makes "
            f"others of them: its outputs would have another shape"
        )
    options: dict[str, Any] = {"example": example, "strategy": strategy, "way": way}
    members = ensemble(member, ensemble_size, init="ones", own=("*",), **options)
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for name, rows in members.network.named_parameters():
            for row in rows:
                row.copy_(drawn_like(parameters[name], row.shape))
    return members
