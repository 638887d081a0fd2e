"""Dropout in networks that have none, and masks that are the same for all examples."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.layers.attention import without_fast_paths
from bayes_share.models.model import Model
from bayes_share.priors.sites import prefix_of
from bayes_share.sharing.convertible import FACTORED
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Members
from bayes_share.tensors.seeding import generator

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_WEIGHT_LAYERS = {*_LAYERS, *(FACTORED[layer] for layer in _LAYERS)}
_OF_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_FORWARDS = {kind.forward for kind in (nn.Dropout, *_OF_CHANNELS)}


@dataclass(frozen=True)
class InputDropout:
    """A forward pre-hook that drops a layer's input in training mode: for convolutions whole channels, else values.

    Args:
        rate: probability of dropping.
        of_channels: whether whole channels are dropped.
    """

    rate: float
    of_channels: bool

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The inputs with their first one dropped from; None, which leaves them alone, in eval mode."""
        if not module.training:
            return None
        drop = torch.feature_dropout if self.of_channels else F.dropout
        return drop(inputs[0], self.rate, True), *inputs[1:]


def dropout_rate(module: nn.Module) -> float:
    """The probability with which a module drops something in training mode, of itself or before it."""
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout
    if isinstance(module, nn.RNNBase):
        return module.dropout if module.num_layers > 1 else 0.0
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    return max((hook.rate for hook in _placed(module)), default=0.0)


def place_dropout(model: Model, rate: float) -> None:
    """See to it that a model has dropout, in place: where its network has none, put it before its layers.

    It comes before every linear layer and convolution but the first, in the order in which the network registers them
    (Gal and Ghahramani 2016, arXiv 1506.02142, put it before every layer with weights); the projections inside an
    attention are left alone. Names of parameters stay as they are. A network with dropout of its own keeps that.

    Args:
        model: to be changed.
        rate: the probability, where dropout is put in.

    Raises:
        InputError: a network with neither dropout nor a second layer to put it before, or with dropout that no mask
            here stands for: inside an attention or a recurrent layer, alpha dropout, a subclass with its own forward.
    """
    network = model.network
    without_fast_paths(network)
    if any(dropout_rate(module) > 0 for module in network.modules()):
        _check_kinds(network)
        return
    layers = _weight_layers(network)
    if len(layers) < 2:
        raise InputError(
            f"nothing can be dropped in this {type(_inner(network)).__name__}: dropout goes before each linear layer "
            f"and convolution but the first, and it has {len(layers)}"
        )
    twins = _twins(network)
    for layer in layers[1:]:
        hook = InputDropout(rate, not isinstance(layer, nn.Linear))
        for module in (layer, *twins.get(layer, ())):
            module.register_forward_pre_hook(hook)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a network drops something.

    Args:
        number: of all places, from 0.
        name: of the module in the user's network.
        module: a dropout layer, or a layer with an `InputDropout`.
        twins: the modules that stand for it where members are run one by one.
        rate: probability of dropping.
    """

    number: int
    name: str
    module: nn.Module
    twins: tuple[nn.Module, ...]
    rate: float


def places_of(model: Model) -> list[Place]:
    """Where a model drops something, in the order in which its network registers the modules."""
    prefix, twins = prefix_of(model.network), _twins(model.network)
    found = [(name, module) for name, module in model.network.named_modules() if dropout_rate(module) > 0]
    return [
        Place(number, name.removeprefix(prefix), module, twins.get(module, ()), dropout_rate(module))
        for number, (name, module) in enumerate(found)
    ]


@contextmanager
def masked(model: Model, sample: int, batch_size: int, places: Sequence[Place] | None = None) -> Iterator[None]:
    """Drop in eval mode, with masks that depend on the draw, the member and the place alone.

    Every example is multiplied by the same mask, so that the network is one function. Compiled networks are run as
    they were written, because masks come and go.

    Args:
        model: with dropout.
        sample: number of the draw.
        batch_size: examples that the model is going to be called with.
        places: where to drop; None: wherever the model does.

    Raises:
        InputError: on a call of the model: dropout of something that does not have the rows of the batch first.
    """
    network = model.network
    masks = _Masks(sample, batch_size)
    handles = []
    for place in places_of(model) if places is None else places:
        for rows_of, same in ((model.rows_each, place.module), *((1, twin) for twin in place.twins)):
            mask = _Mask(masks, place, rows_of)
            if isinstance(place.module, nn.modules.dropout._DropoutNd):
                handles.append(same.register_forward_hook(mask.after))
            else:
                handles.append(same.register_forward_pre_hook(mask.before))
    if isinstance(network, Ensemble) and network._plain is not None:
        handles.append(network.plain.register_forward_pre_hook(masks.next_member))
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _Masks:
    """What the masks of one draw have in common, and which member a loop has come to."""

    sample: int
    batch_size: int
    member: int = -1
    calls: dict[tuple[int, int], int] = field(default_factory=dict)

    def next_member(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A hook: the plain network is called for another member."""
        self.member += 1

    def mask(self, place: Place, members: range, shape: tuple[int, ...]) -> Tensor:
        """``[member, 1, 1, *shape]``: 0, or ``1 / (1 - rate)``; the same for a member in a loop as among all."""
        call = self.calls.setdefault((place.number, members.start), 0)
        self.calls[place.number, members.start] += 1
        uniform = [
            torch.rand(shape, generator=generator("draw", self.sample, place.number, call, member), dtype=torch.float64)
            for member in members
        ]
        kept = (torch.stack(uniform) >= place.rate).double()
        return (kept / (1 - place.rate) if place.rate < 1 else kept)[:, None, None]


@dataclass(frozen=True)
class _Mask:
    """The mask at one place.

    Args:
        masks: of the draw.
        place: where it is.
        ensemble_size: members that the rows are divided among; 1 in a network that is one member alone.
    """

    masks: _Masks
    place: Place
    ensemble_size: int

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """A hook that masks a layer's input."""
        return self._apply(inputs[0], not isinstance(module, nn.Linear)), *inputs[1:]

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """A hook that masks what a dropout layer lets through."""
        return self._apply(output, isinstance(module, _OF_CHANNELS))

    def _apply(self, x: Tensor, of_channels: bool) -> Tensor:
        rows = self.ensemble_size * self.masks.batch_size
        if x.ndim < 2 or x.shape[0] % rows:
            raise InputError(
                f"one mask for all examples needs them on the first axis where dropout is, and at {self.place.name}, "
                f"with {self.masks.batch_size} of them, is a tensor of shape {list(x.shape)}"
            )
        first = max(self.masks.member, 0)  # in a loop; all of them where all rows come at once
        shape = (x.shape[1], *[1] * (x.ndim - 2)) if of_channels else tuple(x.shape[1:])
        mask = self.masks.mask(self.place, range(first, first + self.ensemble_size), shape)
        parts = x.unflatten(0, (self.ensemble_size, self.masks.batch_size, -1))
        return (parts * mask.to(x.device, x.dtype)).flatten(0, 2)


def is_maskable(module: nn.Module) -> bool:
    """Whether a mask can stand for what a module drops: it is one of torch's layers, or has an `InputDropout`."""
    return type(module).forward in _FORWARDS or bool(_placed(module))


def _placed(module: nn.Module) -> list[InputDropout]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, InputDropout)]


def _weight_layers(network: nn.Module) -> list[nn.Module]:
    """The linear layers and convolutions that are not a part of an attention, which may read their weights itself."""
    within = {
        part for module in network.modules() if isinstance(module, nn.MultiheadAttention) for part in module.modules()
    }
    return [module for module in network.modules() if type(module) in _WEIGHT_LAYERS and module not in within]


def _twins(network: nn.Module) -> dict[nn.Module, tuple[nn.Module, ...]]:
    """The modules of the plain network that an ensemble may run member by member, by those they stand for."""
    if not isinstance(network, Ensemble) or network._plain is None:
        return {}
    plain = dict(network.plain.named_modules())
    return {module: (plain[name],) for name, module in network.network.named_modules()}


def _inner(network: nn.Module) -> nn.Module:
    return network.network if isinstance(network, Members) else network


def _check_kinds(network: nn.Module) -> None:
    for full_name, module in network.named_modules():
        name = full_name.removeprefix(prefix_of(network))
        if dropout_rate(module) == 0 or is_maskable(module):
            continue
        if isinstance(module, nn.MultiheadAttention):
            raise InputError(
                f"{name} drops attention weights, for which there is no mask that is the same for all examples: "
                f"set its dropout to 0"
            )
        if isinstance(module, nn.RNNBase):
            raise InputError(
                f"{name} drops between its own layers, where no mask can be put: set its dropout to 0, and use "
                f"recurrent layers of num_layers=1 with nn.Dropout between them"
            )
        raise InputError(f"{name} is a {type(module).__name__}, which MC dropout does not know: use nn.Dropout")
