"""Dropout for networks without it, and dropout masks that are the same for all examples."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.errors import InputError
from bayes_share.inference.draws.host_draws import sent
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
    """A forward pre-hook that applies dropout to a layer's input in training mode.

    Args:
        rate: dropout probability.
        of_channels: whether to drop whole channels, as before convolutions, instead of single values.
    """

    rate: float
    of_channels: bool

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return the inputs with dropout applied to the first one, or None in eval mode."""
        if not module.training:
            return None
        drop = torch.feature_dropout if self.of_channels else F.dropout
        return drop(inputs[0], self.rate, True), *inputs[1:]


def dropout_rate(module: nn.Module) -> float:
    """Return the dropout probability of a module or of an `InputDropout` before it, in training mode; 0 without."""
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout
    if isinstance(module, nn.RNNBase):
        return module.dropout if module.num_layers > 1 else 0.0
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p
    return max((hook.rate for hook in _input_dropouts(module)), default=0.0)


def place_dropout(model: Model, rate: float) -> None:
    """Add dropout to a model in place if its network has none.

    Dropout is added before every linear layer and convolution except the first, in the order in which the network
    registers them. Gal and Ghahramani (2016, arXiv 1506.02142) place it before every layer with weights. Projections
    within attention layers are left unchanged. Parameter names do not change. A network with its own dropout keeps it.

    Args:
        model: the model; it is changed.
        rate: dropout probability of the added dropout.

    Raises:
        InputError: if the network has no dropout and fewer than two layers, or its dropout cannot be replaced by fixed
            masks: in attention or recurrent layers, alpha dropout, or subclasses with their own forward.
    """
    network = model.network
    without_fast_paths(network)
    if any(dropout_rate(module) > 0 for module in network.modules()):
        _check_kinds(network)
        return
    layers = _weight_layers(network)
    if len(layers) < 2:
        raise InputError(
            f"dropout cannot be added to this {type(_inner(network)).__name__}: it is placed before each linear layer "
            f"and convolution except the first, and the network has {len(layers)}"
        )
    twins = _twins(network)
    for layer in layers[1:]:
        hook = InputDropout(rate, not isinstance(layer, nn.Linear))
        for module in (layer, *twins.get(layer, ())):
            module.register_forward_pre_hook(hook)


@dataclass(frozen=True, eq=False)
class Place:
    """A place where a network applies dropout.

    Args:
        number: index among all places, from 0.
        name: name of the module in the user's network.
        module: a dropout layer, or a layer with an `InputDropout`.
        twins: the corresponding modules of the plain network, used if members are run one after another.
        rate: dropout probability.
    """

    number: int
    name: str
    module: nn.Module
    twins: tuple[nn.Module, ...]
    rate: float


def places_of(model: Model) -> list[Place]:
    """Return the places where a model applies dropout, in the order in which its network registers the modules."""
    prefix, twins = prefix_of(model.network), _twins(model.network)
    found = [(name, module) for name, module in model.network.named_modules() if dropout_rate(module) > 0]
    return [
        Place(number, name.removeprefix(prefix), module, twins.get(module, ()), dropout_rate(module))
        for number, (name, module) in enumerate(found)
    ]


@contextmanager
def masked(model: Model, sample: int, batch_size: int, places: Sequence[Place] | None = None) -> Iterator[None]:
    """Apply dropout in eval mode with masks that depend only on the draw, the member and the place.

    All examples are multiplied by the same mask, so the network is a single function. Compiled networks run uncompiled,
    because the masks are added and removed as hooks.

    Args:
        model: a model with dropout.
        sample: index of the draw.
        batch_size: number of examples in the calls of the model.
        places: where to apply dropout. None: at all places of the model.

    Raises:
        InputError: in a call of the model, if the first axis of a tensor with dropout is not the batch.
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
    """The masks of one draw. If members are run one after another, `member` is the current one."""

    sample: int
    batch_size: int
    member: int = -1
    calls: dict[tuple[int, int], int] = field(default_factory=dict)

    def next_member(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook of the plain network, which is called once per member."""
        self.member += 1

    def mask(self, place: Place, members: range, shape: tuple[int, ...]) -> Tensor:
        """Return a mask ``[member, 1, 1, *shape]`` of 0 and ``1 / (1 - rate)``, the same for a member in a loop."""
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
        masks: the masks of the draw.
        place: the place.
        ensemble_size: number of members among which the rows are divided; 1 in a network of a single member.
    """

    masks: _Masks
    place: Place
    ensemble_size: int

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook that masks a layer's input."""
        return self._apply(inputs[0], not isinstance(module, nn.Linear)), *inputs[1:]

    def after(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook that masks the output of a dropout layer."""
        return self._apply(output, isinstance(module, _OF_CHANNELS))

    def _apply(self, x: Tensor, of_channels: bool) -> Tensor:
        rows = self.ensemble_size * self.masks.batch_size
        if x.ndim < 2 or x.shape[0] % rows:
            raise InputError(
                f"dropout masks require examples on the first axis, but {self.place.name} applies dropout to a tensor "
                f"of shape {list(x.shape)} for {self.masks.batch_size} examples"
            )
        first = max(self.masks.member, 0)  # the current member in a loop; 0 if all members are computed at once
        shape = (x.shape[1], *[1] * (x.ndim - 2)) if of_channels else tuple(x.shape[1:])
        mask = self.masks.mask(self.place, range(first, first + self.ensemble_size), shape)
        parts = x.unflatten(0, (self.ensemble_size, self.masks.batch_size, -1))
        return (parts * sent(mask.to(x.dtype), x.device)).flatten(0, 2)


def is_maskable(module: nn.Module) -> bool:
    """Return whether fixed masks can replace a module's dropout: torch's own layers, and `InputDropout`."""
    return type(module).forward in _FORWARDS or bool(_input_dropouts(module))


def _input_dropouts(module: nn.Module) -> list[InputDropout]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, InputDropout)]


def _weight_layers(network: nn.Module) -> list[nn.Module]:
    """Return the linear layers and convolutions outside of attention layers, which may read weights directly."""
    within = {
        part for module in network.modules() if isinstance(module, nn.MultiheadAttention) for part in module.modules()
    }
    return [module for module in network.modules() if type(module) in _WEIGHT_LAYERS and module not in within]


def _twins(network: nn.Module) -> dict[nn.Module, tuple[nn.Module, ...]]:
    """Map each module of an ensemble to its counterpart in the plain network that runs member by member."""
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
                f"{name} applies dropout to attention weights, for which no mask can be the same for all examples: "
                f"set its dropout to 0"
            )
        if isinstance(module, nn.RNNBase):
            raise InputError(
                f"{name} applies dropout between its own layers, where masks cannot be placed: set its dropout to 0, "
                f"and use recurrent layers with num_layers=1 and nn.Dropout between them"
            )
        raise InputError(f"{name} is a {type(module).__name__}, which MC dropout does not support: use nn.Dropout")
