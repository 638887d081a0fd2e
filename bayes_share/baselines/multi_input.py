"""MIMO: a single network with one input and one output per member."""

from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from bayes_share.baselines.boundary_layers import Ends, ends_of
from bayes_share.baselines.resizing import resized, shapes_of
from bayes_share.errors import InputError, unknown
from bayes_share.layers.factor_parameters import check_ensemble_size
from bayes_share.sharing.batch_dependence import run_example, without_hooks
from bayes_share.sharing.members_interface import Feed, Members
from bayes_share.sharing.outputs import known
from bayes_share.tensors.calls import Call

_WHAT = "mimo()"
_FEEDS = get_args(Feed)


class Mimo(Members):
    """A network with several inputs and outputs that is called on plain batches. Created by `mimo`.

    Args:
        network: a network that maps ``[batch, member * channel, ...]`` to ``[batch, ..., member * output, ...]``.
        ensemble_size: the number of members.
        output_axis: the axis of the network's outputs that is divided among the members.
    """

    def __init__(self, network: nn.Module, ensemble_size: int, output_axis: int = 1) -> None:
        super().__init__()
        self.network = network
        self.ensemble_size = ensemble_size
        self.output_axis = output_axis
        self.training = network.training

    def forward(self, x: Any, /, *, feed: Feed = "tile") -> Any:
        """Compute the outputs of all members.

        Args:
            x: a batch ``[batch, channel, ...]``.
            feed: ``"tile"``: all inputs of the network are the same image, for prediction. ``"split"``: member m gets
                the m-th consecutive part of the batch, so that all inputs of the network are different images.

        Returns:
            ``[member, batch, output, ...]``, or ``[member, batch / member, output, ...]`` if the batch is split.

        Raises:
            InputError: if `x` is not a single tensor with at least two axes, the batch does not divide among the
                members, or `feed` is unknown.
        """
        if feed not in _FEEDS:
            raise unknown("feed", feed, _FEEDS)
        if not isinstance(x, Tensor) or x.ndim < 2:
            raise InputError("a MIMO network requires one tensor [batch, channel, ...] as its input")
        size = self.ensemble_size
        if feed == "split" and len(x) % size:
            raise InputError(f"a batch of size {len(x)} cannot be split among {size} members")
        parts = [x] * size if feed == "tile" else x.chunk(size)
        return tree_map(self._divided, self.network(torch.cat(list(parts), dim=1)))

    @property
    def rows_each(self) -> int:
        """The number of network rows per example, which is 1, as all members share the rows."""
        return 1

    @property
    def is_settled(self) -> bool:
        """True, as there is nothing to determine from a batch."""
        return True

    def settle(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing, as there is nothing to determine from a batch."""

    def summary(self) -> str:
        """Describe how the members compute."""
        return (
            f"{self.ensemble_size} members in one network (MIMO), whose input channels hold the images of all members"
        )

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return f"ensemble_size={self.ensemble_size}"

    def _divided(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim > self.output_axis:
            return leaf.unflatten(self.output_axis, (self.ensemble_size, -1)).movedim(self.output_axis, 0)
        return known(leaf)


def mimo(net: nn.Module, ensemble_size: int = 3, *, example: Tensor) -> Mimo:
    """Return a network with one input and one output per member (MIMO, Havasi et al. 2021, arXiv 2010.06610).

    The first layers take the channels of `ensemble_size` images, and the last layers give `ensemble_size` outputs. All
    other layers keep their weights. Train with ``feed="own"``, which gives each member its own order of the images, or
    ``"split"``: the network then learns a prediction for each of its inputs in one forward pass. For prediction, all
    inputs are the same image.

    Args:
        net: a freshly initialised network of torch's linear layers, convolutions and norms, with one output, which
            comes from the last of these layers.
        ensemble_size: the number of members. Small networks only have capacity for few members; the paper uses 2 to 4
            for Wide ResNet-28-10.
        example: a batch ``[batch, channel, ...]``, on which the network runs once; two examples suffice.

    Returns:
        A network that maps ``[batch, ...]`` to ``[member, batch, ...]``. Members are not separate networks, so `fold`
        and `Ensemble.keep` do not apply.

    Raises:
        InputError: if the network has unsupported layers, or fixes its widths outside of its layers.

    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> members = mimo(net, ensemble_size=3, example=torch.zeros(2, 8))
    >>> members(torch.zeros(5, 8)).shape, members.network[0].weight.shape
    (torch.Size([3, 5, 3]), torch.Size([16, 24]))
    """
    check_ensemble_size(ensemble_size)
    if not isinstance(example, Tensor) or example.ndim < 2:
        raise InputError("mimo() requires a network with one input tensor [batch, channel, ...]")
    ends, size = ends_of(net, example), ensemble_size
    inputs = torch.cat([example] * size, dim=1)
    network = resized(
        net, inputs, lambda name, channels: channels * (size if name in ends.last else 1), lambda name: 1, _WHAT
    )
    _check_first(net, network, ends, size)
    result = Mimo(network, size, _output_axis(net, example, network, inputs, size))
    _check_members_independent(result, ends, example)
    return result


def _check_first(net: nn.Module, network: nn.Module, ends: Ends, size: int) -> None:
    """Raise InputError unless each first layer takes the channels of all members."""
    before, after = dict(net.named_modules()), dict(network.named_modules())
    for name in ends.first:
        if _inputs(after[name]) != size * _inputs(before[name]):
            raise InputError(
                f"{_WHAT} concatenates images along the channel axis, [batch, channel, ...], and "
                f"{name or 'the layer'} uses another axis"
            )


def _inputs(layer: Any) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _output_axis(net: nn.Module, example: Tensor, network: nn.Module, inputs: Tensor, size: int) -> int:
    """Return the axis of the outputs that has become `size` times as long.

    Raises:
        InputError: if there is no such axis, or the network has several outputs.
    """
    before, after = shapes_of(net, example), shapes_of(network, inputs)
    if len(before) == len(after) == 1 and len(before[0]) == len(after[0]):
        longer = [axis for axis, sizes in enumerate(zip(before[0], after[0], strict=True)) if sizes[0] != sizes[1]]
        if len(longer) == 1 and longer[0] > 0 and after[0][longer[0]] == size * before[0][longer[0]]:
            return longer[0]
    raise InputError(
        f"{_WHAT} requires a network with one output, which comes from its last linear layers or convolutions; here "
        f"outputs of shape {[list(shape) for shape in before]} would become {[list(shape) for shape in after]}"
    )


def _check_members_independent(mimo_network: Mimo, ends: Ends, example: Tensor) -> None:
    """Raise InputError if operations after the last layers mix the members, as a softmax over all outputs would."""
    generator = torch.Generator().manual_seed(0)

    def perturb(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Forward hook that adds noise to the outputs of all members except the first."""
        parts = output.unflatten(-1 if isinstance(module, nn.Linear) else 1, (mimo_network.ensemble_size, -1))
        axis = parts.ndim - 2 if isinstance(module, nn.Linear) else 1
        noise = torch.randn(parts.shape, generator=generator).to(parts)
        noise.select(axis, 0).zero_()
        return (parts + noise).flatten(axis, axis + 1)

    modules = dict(mimo_network.network.named_modules())
    call = Call((example,), {})
    with without_hooks(mimo_network.network):
        before = run_example(mimo_network, call)
        handles = [modules[name].register_forward_hook(perturb) for name in ends.last]
        after = run_example(mimo_network, call)
        for handle in handles:
            handle.remove()
    pairs = zip(tree_leaves(before), tree_leaves(after), strict=True)
    if any(isinstance(one, Tensor) and not torch.equal(one[0], other[0]) for one, other in pairs):
        raise InputError(
            f"operations of this {type(mimo_network.network).__name__} after its last layer would mix the members of "
            f"{_WHAT}: return the outputs of that layer, such as logits"
        )
