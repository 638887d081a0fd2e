"""Masksembles: members that apply different fixed masks to the inputs of each layer."""

from collections.abc import Sequence
from glob import escape

from torch import Tensor, nn

from bayes_share.baselines.boundary_layers import ends_of
from bayes_share.layers.factors import FactorInit
from bayes_share.layers.way import Way
from bayes_share.sharing.convertible import FACTORED
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.strategy import Strategy


def masked(
    net: nn.Module,
    ensemble_size: int = 4,
    scale: int | float = 2.0,
    *,
    example: Tensor,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    strategy: Strategy = "auto",
    way: Way = "auto",
) -> Ensemble:
    """Return a Masksembles ensemble of a network, to train from scratch (Durasov et al. 2021, arXiv 2012.08334).

    Member m computes with the weight ``W ∘ (1 r_mᵀ)``, where r_m is a fixed random binary mask of the layer's inputs.
    This is a rank-1 ensemble whose factors are not trained: the members share all parameters and differ only in their
    masks.

    Args:
        net: a network, as for `ensemble`.
        ensemble_size: the number of members.
        scale: the scale of the masks; a larger scale gives less overlap. 1 makes all members identical, 2 is the usual
            value; see `bayes_share.layers.masks.overlapping_masks`.
        example: a batch ``[batch, ...]``, used to find the first layers, which get no masks; two examples suffice.
        include: names or patterns of the layers that get masks, as in `ensemble`; None: all but the first layers.
        exclude: names or patterns of the layers that get no masks.
        strategy: as in `ensemble`.
        way: as in `ensemble`.

    Returns:
        The ensemble, as returned by `ensemble`.

    Raises:
        InputError: as in `ensemble`; also if the scale is below 1, or a layer has too few input channels for it.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> members = masked(net, ensemble_size=4, example=torch.zeros(2, 8))
    >>> members(torch.zeros(5, 8)).shape, len(list(members.parameters()))
    (torch.Size([4, 5, 3]), 4)
    """
    start = FactorInit("mask", mask_scale=scale)
    modules = dict(net.named_modules())
    reached = () if include is not None else sorted(ends_of(net, example).first)
    first = [escape(name) for name in reached if type(modules[name]) in FACTORED]
    return ensemble(
        net,
        ensemble_size,
        start,
        include=include,
        exclude=(*exclude, *first),
        example=example,
        strategy=strategy,
        way=way,
    )
