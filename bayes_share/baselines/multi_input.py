"""MIMO: one network that takes an image for each member, and gives outputs for each."""

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
    """A network of several inputs and outputs, called on plain batches. Made by `mimo`.

    Args:
        network: takes ``[batch, member * channel, ...]`` and gives ``[batch, ..., member * output, ...]``.
        ensemble_size: members.
        output_axis: the axis of its outputs that is divided among the members.
    """

    def __init__(self, network: nn.Module, ensemble_size: int, output_axis: int = 1) -> None:
        super().__init__()
        self.network = network
        self.ensemble_size = ensemble_size
        self.output_axis = output_axis
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
            raise InputError("a MIMO network requires one tensor [batch, channel, ...] as its input")
        size = self.ensemble_size
        if feed == "split" and len(x) % size:
            raise InputError(f"a batch of size {len(x)} cannot be split among {size} members")
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
        return (
            f"{self.ensemble_size} members in one network (MIMO), whose input channels hold the images of all members"
        )

    def extra_repr(self) -> str:
        """The number of members."""
        return f"ensemble_size={self.ensemble_size}"

    def _divided(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim > self.output_axis:
            return leaf.unflatten(self.output_axis, (self.ensemble_size, -1)).movedim(self.output_axis, 0)
        return known(leaf)


def mimo(net: nn.Module, ensemble_size: int = 3, *, example: Tensor) -> Mimo:
    """A network with an input and an output for each member (MIMO, Havasi et al. 2021, arXiv 2010.06610).

    The first layers take the channels of `ensemble_size` images, and the last ones give that many outputs; the layers
    between keep their weights. Train it with ``feed="own"``, which gives each member images in an order of its own, or
    with ``"split"``: then the network learns a prediction for each of its inputs, in one pass. To predict, all inputs
    are the same image.

    Args:
        net: made of linear layers, convolutions and norms of torch, freshly initialised; with one output, of the last
            of these layers.
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
        raise InputError("mimo() requires a network with one input tensor [batch, channel, ...]")
    ends, size = ends_of(net, example), ensemble_size
    inputs = torch.cat([example] * size, dim=1)
    network = resized(
        net, inputs, lambda name, before: before * (size if name in ends.last else 1), lambda name: 1, _WHAT
    )
    _check_first(net, network, ends, size)
    made = Mimo(network, size, _output_axis(net, example, network, inputs, size))
    _check_apart(made, ends, example)
    return made


def _check_first(net: nn.Module, network: nn.Module, ends: Ends, size: int) -> None:
    """Raise an InputError unless each first layer takes the channels of all members."""
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
    """The axis of the outputs that has become `size` times as long.

    Raises:
        InputError: there is none, or there are several outputs.
    """
    before, after = shapes_of(net, example), shapes_of(network, inputs)
    if len(before) == len(after) == 1 and len(before[0]) == len(after[0]):
        longer = [axis for axis, sizes in enumerate(zip(before[0], after[0], strict=True)) if sizes[0] != sizes[1]]
        if len(longer) == 1 and longer[0] > 0 and after[0][longer[0]] == size * before[0][longer[0]]:
            return longer[0]
    raise InputError(
        f"{_WHAT} takes networks with one output, all of it from their last linear layers or convolutions; here outputs"
        f" of shape {[list(shape) for shape in before]} would become {[list(shape) for shape in after]}"
    )


def _check_apart(made: Mimo, ends: Ends, example: Tensor) -> None:
    """Raise an InputError where what comes after the last layers mixes the members, as a softmax over all would."""
    noise = torch.Generator().manual_seed(0)

    def change(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """A hook: other outputs for all members but the first."""
        parts = output.unflatten(-1 if isinstance(module, nn.Linear) else 1, (made.ensemble_size, -1))
        axis = parts.ndim - 2 if isinstance(module, nn.Linear) else 1
        change = torch.randn(parts.shape, generator=noise).to(parts)
        change.select(axis, 0).zero_()
        return (parts + change).flatten(axis, axis + 1)

    modules = dict(made.network.named_modules())
    call = Call((example,), {})
    with without_hooks(made.network):
        before = run_example(made, call)
        handles = [modules[name].register_forward_hook(change) for name in ends.last]
        after = run_example(made, call)
        for handle in handles:
            handle.remove()
    pairs = zip(tree_leaves(before), tree_leaves(after), strict=True)
    if any(isinstance(one, Tensor) and not torch.equal(one[0], other[0]) for one, other in pairs):
        raise InputError(
            f"operations of this {type(made.network).__name__} after its last layer would mix the members of "
            f"{_WHAT}: return the outputs of that layer, such as logits"
        )
