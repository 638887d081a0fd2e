"""The last layer of a network: which one it is, and a proof by trial that the outputs follow its weight and no more."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import prune

from bayes_share.errors import InputError
from bayes_share.models.model import Model
from bayes_share.sharing.conversion import has_computed_weight
from bayes_share.sharing.fold import fold
from bayes_share.sharing.members import Ensemble

_ROUNDING = {torch.float64: 1e-6}
_LEAST_ROUNDING = 1e-3  # of any other dtype, also where products are taken in TensorFloat-32


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The last layer of one member.

    Args:
        network: the member, a plain network of its own in eval mode, in which the layer is an `nn.Linear` with the
            weight and bias that the member uses as its parameters.
        name: of the layer in the network.
        parts: what of it is unknown, that is, not frozen: "weight", "bias" or both.
    """

    network: nn.Module
    name: str
    parts: tuple[str, ...]

    @property
    def layer(self) -> nn.Module:
        """The layer."""
        return self.network.get_submodule(self.name)

    @property
    def unknown(self) -> dict[str, Tensor]:
        """The weight and bias that are unknown, as the member uses them."""
        return {part: getattr(self.layer, part).detach() for part in self.parts}

    @torch.no_grad()
    def shift(self, change: Float[Tensor, "output input"]) -> None:
        """Add to the unknown numbers, in place: columns for the weight, and one for the bias."""
        for parameter in self.unknown.values():
            width = parameter.shape[1] if parameter.ndim == 2 else 1
            parameter.add_(change[:, :width].reshape(parameter.shape))
            change = change[:, width:]
        torch.clear_autocast_cache()  # which keeps weights in low precision, and does not see that they change

    @torch.no_grad()
    def rows(self, x: Tensor) -> tuple[Float[Tensor, "row input"], Tensor, int]:
        """Run the network.

        Returns:
            What multiplies the unknown numbers in each row (a 1 for the bias); the outputs; and how many of their first
            axes count the rows: 1, or more where an example has an output for each of several positions.
        """
        with _last_call(self.network) as call:
            outputs = self.network(x)
        inputs = call.inputs.flatten(0, -2)
        columns = {"weight": inputs, "bias": inputs.new_ones(len(inputs), 1)}
        return torch.cat([columns[part] for part in self.parts], 1), outputs, _row_axes(outputs, len(inputs))


def last_layers(model: Model, name: str) -> list[LastLayer]:
    """The last layer of each member, by its name."""
    return _with_layer(model, _members(model), name)


def find_last_layers(model: Model, x: Tensor) -> list[LastLayer]:
    """The last layer of each member, shown by a few examples to be one.

    The layer is the linear layer whose outputs are the network's. A change of its weight and bias, as the member uses
    them, must change the network's outputs by that change times the layer's inputs, and by nothing else.

    Args:
        model: stays as it is.
        x: a few examples.

    Raises:
        InputError: there is no such layer, it is frozen, or the outputs do not follow it.
    """
    x = x.to(next(model.parameters()).device)
    networks = _members(model)
    found = [_find(network, x) for network in networks]
    name = found[0][0]
    layers = _with_layer(model, networks, name)
    called = _called(name)
    if not layers[0].parts:
        raise InputError(f"the last layer, {called}, is frozen: there is nothing to approximate")
    for (other, outputs), layer in zip(found, layers, strict=True):
        if other != name or not _follows(layer, x, outputs):
            raise InputError(
                f"the outputs do not change in proportion to the weight of the last layer, {called}: something changes "
                f"them afterwards or uses the weight elsewhere; a last-layer Laplace approximation needs a network "
                f"that ends with a linear layer of its own"
            )
    return layers


def layer_of(model: Model, name: str) -> nn.Module:
    """The layer of this name of the network in the model, with what its weight is made of."""
    network = model.network.network if isinstance(model.network, Ensemble) else model.network
    return network.get_submodule(name)


def is_of_bias(parameter: str) -> bool:
    """Whether a parameter of a linear layer, by its name in the layer, is of its bias and not of its weight."""
    return parameter.removeprefix("parametrizations.").startswith("bias")


@dataclass
class _Call:
    """The last call of a linear layer: its name, copies of its inputs and outputs, and how often each layer was called.

    Copies, since a network may change either in place afterwards.
    """

    counts: Counter[str]
    name: str | None = None
    inputs: Tensor = field(default_factory=lambda: torch.empty(0))
    outputs: Tensor = field(default_factory=lambda: torch.empty(0))


@contextmanager
def _last_call(network: nn.Module) -> Iterator[_Call]:
    call = _Call(Counter())

    def before(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        call.counts[name] += 1
        call.name, call.inputs = name, (args[0] if args else kwargs["input"]).detach().clone()

    def after(name: str, output: Tensor) -> None:
        call.outputs = output.detach().clone()

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            handles += [
                module.register_forward_pre_hook(
                    lambda module, args, kwargs, name=name: before(name, args, kwargs), with_kwargs=True
                ),
                module.register_forward_hook(lambda module, args, output, name=name: after(name, output)),
            ]
    try:
        yield call
    finally:
        for handle in handles:
            handle.remove()


def _find(network: nn.Module, x: Tensor) -> tuple[str, Tensor]:
    """The name of the linear layer whose outputs are the network's, and these."""
    with _last_call(network) as call, torch.no_grad():
        outputs = network(x)
    if call.name is None:
        raise InputError("the network has no linear layer that the data reach, so no last layer to approximate")
    are_its = outputs.numel() == call.outputs.numel() and torch.equal(
        outputs.flatten().double(), call.outputs.flatten().double()
    )
    if not are_its or len(outputs) != len(x):
        raise InputError(
            f"the outputs of the last linear layer, {_called(call.name)}, are not those of the network: a last-layer "
            f"Laplace approximation needs a network that ends with one"
        )
    _row_axes(outputs, call.inputs.shape[:-1].numel())
    if call.counts[call.name] > 1:
        raise InputError(
            f"the last layer, {_called(call.name)}, is called more than once for a batch, so it is not only the last"
        )
    return call.name, outputs


def _row_axes(outputs: Tensor, rows: int) -> int:
    """How many of the first axes of the outputs count so many rows of the last layer."""
    for axes in range(1, outputs.ndim + 1):
        if outputs.shape[:axes].numel() == rows:
            return axes
    raise InputError(
        f"outputs of shape {list(outputs.shape)} mix the {rows} rows of the last layer: a last-layer Laplace "
        f"approximation takes outputs [batch, *positions, output]"
    )


@torch.no_grad()
def _follows(last: LastLayer, x: Tensor, outputs: Tensor) -> bool:
    """Whether a change of the layer changes the outputs as it must, to rounding; leaves the layer as it is."""
    kept = {part: value.clone() for part, value in last.unknown.items()}
    inputs, _, _ = last.rows(x)
    source = torch.Generator().manual_seed(0)
    scale = max(1.0, *(float(value.abs().max()) for value in kept.values()))
    noise = torch.randn(len(next(iter(kept.values()))), inputs.shape[1], generator=source, dtype=torch.float64)
    change = (scale * noise).to(inputs)
    last.shift(change)
    with _last_call(last.network) as call:
        found = last.network(x)
    for part, value in last.unknown.items():
        value.copy_(kept[part])
    torch.clear_autocast_cache()
    expected = outputs.double().flatten() + (inputs.double() @ change.double().T).flatten()
    size = outputs.double().abs().flatten() + (inputs.double().abs() @ change.double().abs().T).flatten()
    dtype = call.outputs.dtype  # not the outputs', which may be converted
    rounding = _ROUNDING.get(dtype, max(_LEAST_ROUNDING, 8 * torch.finfo(dtype).eps))
    return bool(((found.double().flatten() - expected).abs() <= rounding * size + 1e-30).all())


def _members(model: Model) -> list[nn.Module]:
    """A plain network of its own for each member, in eval mode."""
    network = model.network
    members = range(network.ensemble_size) if isinstance(network, Ensemble) else (None,)
    return [fold(network, member).eval() for member in members]


def _with_layer(model: Model, networks: list[nn.Module], name: str) -> list[LastLayer]:
    parts = _trained_parts(layer_of(model, name))
    return [LastLayer(_with_plain_layer(network, name), name, parts) for network in networks]


def _trained_parts(layer: nn.Module) -> tuple[str, ...]:
    """The weight where any of what it is made of is trained, and the bias likewise."""
    are_of_bias = {is_of_bias(name) for name, parameter in layer.named_parameters() if parameter.requires_grad}
    return tuple(part for part, of_bias in (("weight", False), ("bias", True)) if of_bias in are_of_bias)


@torch.no_grad()
def _with_plain_layer(network: nn.Module, name: str) -> nn.Module:
    """The network with a plain linear layer in the place of one whose weight or bias is computed, with these values."""
    layer: Any = network.get_submodule(name)
    if not has_computed_weight(layer) and isinstance(layer.bias, nn.Parameter | None):
        return network
    if prune.is_pruned(layer):
        raise InputError(
            f"the last layer, {_called(name)}, is pruned, and a posterior would be over the pruned weights too: make "
            f"it permanent with torch.nn.utils.prune.remove"
        )
    example = next(layer.parameters())
    layer(torch.zeros(1, layer.in_features, dtype=example.dtype, device=example.device))  # hooks make the weight now
    sizes, options = (layer.in_features, layer.out_features, layer.bias is not None), {"dtype": example.dtype}
    plain = nn.utils.skip_init(nn.Linear, *sizes, device=example.device, **options)
    for part in ("weight", "bias") if layer.bias is not None else ("weight",):
        getattr(plain, part).copy_(getattr(layer, part))
    if not name:
        return plain.eval()
    network.set_submodule(name, plain.eval())
    return network


def _called(name: str) -> str:
    return name or "the network itself"
