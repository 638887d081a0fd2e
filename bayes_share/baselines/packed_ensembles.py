"""Packed ensembles: a wider network that grouped convolutions divide into members."""

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
    """Return a packed ensemble of a network, to train from scratch (Laurent et al. 2023, arXiv 2210.09184).

    In the paper, the network is made `alpha` times as wide and divided into `ensemble_size` members by grouped
    convolutions. Each member is then the network with ``alpha / ensemble_size`` times the channels, and shares no
    parameters with the others. With ``alpha=2`` and four members, each member has half the width, and all members
    together have about as many parameters as the network. This function returns the equivalent `Ensemble`, whose
    members have only parameters of their own. The first layers take the whole input, and the last layers give all
    outputs.

    Args:
        net: a freshly initialised network of torch's linear layers, convolutions and norms. The initial values of each
            member are sampled from those of the network's layers, and rescaled for the new fan-in.
        ensemble_size: the number of members.
        alpha: the total width of all members relative to the network.
        gamma: the number of groups that each member's convolutions are divided into, except in the first and last
            layers. Channels are rounded up to a multiple of it.
        example: a batch ``[batch, channel, ...]``, on which the network runs once; two examples suffice.
        strategy: as in `ensemble`.
        way: as in `ensemble`.

    Returns:
        The ensemble, as returned by `ensemble`: it maps ``[batch, ...]`` to ``[member, batch, ...]``. Use `fold` to get
        a member as a plain network.

    Raises:
        InputError: if the network has unsupported layers, or fixes its widths outside of its layers, or if `alpha` or
            `gamma` is not positive.

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
            f"gamma, the groups of a member's convolutions, must be an integer of at least 1, and is {gamma!r}"
        )
    ends = ends_of(net, example)

    def outputs(name: str, channels: int) -> int:
        if name in ends.last:
            return channels
        return max(1, math.ceil(int(channels * alpha) / (ensemble_size * gamma))) * gamma

    def groups(name: str) -> int:
        return 1 if name in (*ends.first, *ends.last) else gamma

    member = resized(net, example, outputs, groups, _WHAT)
    if shapes_of(member, example) != shapes_of(net, example):
        raise InputError(
            f"{_WHAT} would change the shape of the outputs of this {type(net).__name__}: they must come from its last "
            f"linear layers or convolutions alone"
        )
    options: dict[str, Any] = {"example": example, "strategy": strategy, "way": way}
    members = ensemble(member, ensemble_size, init="ones", own=("*",), **options)
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        for name, rows in members.network.named_parameters():
            for row in rows:
                row.copy_(drawn_like(parameters[name], row.shape))
    return members
