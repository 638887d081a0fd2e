"""MIMO: one network that takes an image for each member, and gives outputs for each."""

from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError, unknown
from bayes_share.layers.factored import check_ensemble_size
from bayes_share.rivals.ends import ends_of
from bayes_share.rivals.resizing import resized
from bayes_share.sharing.outputs import known
from bayes_share.sharing.several import Feed, Members

_WHAT = "mimo()"
_FEEDS = get_args(Feed)


class Mimo(Members):
    """A network of several inputs and outputs, called on plain batches. Made by `mimo`.

    Args:
        network: takes ``[batch, member * channel, ...]`` and gives ``[batch, member * output, ...]``.
        ensemble_size: members.
    """

    def __init__(self, network: nn.Module, ensemble_size: int) -> None:
        super().__init__()
        self.network = network
        self.ensemble_size = ensemble_size
        self.training = network.training

    def forward(self, x: Any, /, *, feed: Feed = "tile") -> Any:
        """Every member's outputs.

        Args:
            x: a batch ``[batch, channel, ...]``.
            feed: ``"tile"``: all inputs of the network are the same image, as in prediction; ``"split"``: member m has
                the m-th consecutive part of the batch, so that the network has a different image in each of its inputs.

        Returns:
            ``[member, batch, output, ...]``, or ``[member, batch / member, output, ...]`` where the batch was split.

        Raises:
            InputError: inputs that are no such batch, one that does not divide among the members, an unknown `feed`.
        """
        if feed not in _FEEDS:
            raise unknown("feed", feed, _FEEDS)
        if not isinstance(x, Tensor) or x.ndim < 2:
            raise InputError(
                "a MIMO network takes one tensor [batch, channel, ...], whose channels it has once for each member"
            )
        size = self.ensemble_size
        if feed == "split" and len(x) % size:
            raise InputError(f"a batch of {len(x)} does not split among {size} members")
        parts = [x] * size if feed == "tile" else x.chunk(size)
        return tree_map(self._divided, self.network(torch.cat(list(parts), dim=1)))

    @property
    def rows_each(self) -> int:
        """One: all members compute in the same rows."""
        return 1

    @property
    def is_settled(self) -> bool:
        """Always: no batch changes how it computes."""
        return True

    def settle(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    def summary(self) -> str:
        """How the members compute."""
        return f"{self.ensemble_size} members in one network (MIMO), which takes their images side by side as channels"

    def extra_repr(self) -> str:
        """The number of members."""
        return f"ensemble_size={self.ensemble_size}"

    def _divided(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim >= 2:
            return leaf.unflatten(1, (self.ensemble_size, -1)).movedim(1, 0)
        return known(leaf)


def mimo(net: nn.Module, ensemble_size: int = 3, *, example: Tensor) -> Mimo:
    """A network with an input and an output for each member (MIMO, Havasi et al. 2021, arXiv 2010.06610).

    The first layers take the channels of `ensemble_size` images, and the last ones give that many outputs; the layers
    between keep their weights. Train it with ``feed="own"``, which gives each member images in an order of its own, or
    with ``"split"``: then the network learns a prediction for each of its inputs, in one pass. To predict, all inputs
    are the same image.

    Args:
        net: made of linear layers, convolutions and norms of torch.
        ensemble_size: members; of small networks few fit (the paper has 2 to 4 of a Wide ResNet-28-10).
        example: a batch ``[batch, channel, ...]``, two images are enough: the network runs on it once.

    Returns:
        Called on ``[batch, ...]``, it gives ``[member, batch, ...]``. Members have no network of their own: `fold` and
        `Ensemble.keep` are for others.

    Raises:
        InputError: a network with other layers, or whose widths are fixed in other places too.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> members = mimo(net, ensemble_size=3, example=torch.zeros(2, 8))
    >>> members(torch.zeros(5, 8)).shape, members.network[0].weight.shape
    (torch.Size([3, 5, 3]), torch.Size([16, 24]))
    """
    check_ensemble_size(ensemble_size)
    if not isinstance(example, Tensor) or example.ndim < 2:
        raise InputError("mimo() takes networks of one tensor [batch, channel, ...]")
    last = ends_of(net, example).last
    network = resized(
        net,
        torch.cat([example] * ensemble_size, dim=1),
        lambda name, before: before * (ensemble_size if name in last else 1),
        lambda name: 1,
        _WHAT,
    )
    return Mimo(network, ensemble_size)
