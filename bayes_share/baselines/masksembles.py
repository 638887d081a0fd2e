"""Masksembles: members that see each layer's inputs through masks of their own."""

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
    """A network with masks of its layers' inputs for each member (Masksembles), to train from scratch.

    Member m computes with the weight ``W ∘ (1 r_mᵀ)``, where r_m is a mask of zeros and ones that is drawn once and
    stays: a rank-1 ensemble whose factors are not learned. Members share all parameters, and have masks alone.
    Durasov et al. 2021, arXiv 2012.08334.

    Args:
        net: any network that `ensemble` takes.
        ensemble_size: members.
        scale: how little masks overlap: 1 gives members that are all the same, 2 the usual ones; see
            `bayes_share.layers.masks.overlapping_masks`.
        example: a batch ``[batch, ...]``, two images are enough: shows which layers the input reaches first. These have
            no masks.
        include: names or patterns of the layers that get masks, as of `ensemble`; None: all but the first.
        exclude: the same, of those that do not.
        strategy: as of `ensemble`.
        way: as of `ensemble`.

    Returns:
        As of `ensemble`.

    Raises:
        InputError: as of `ensemble`; a scale below 1, or layers with too few input channels for it.

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
