"""The last layer of a network: which one it is, and a proof by trial that the outputs follow its weight and no more."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import prune

from bayes_share.errors import InputError
from bayes_share.inference.draws.output_layer import FEW, NoOutputLayer, OutputLayer, find_output_layer
from bayes_share.models.model import Model, outputs_of
from bayes_share.sharing.convertible import has_computed_weight
from bayes_share.sharing.fold import fold
from bayes_share.sharing.members import Ensemble
from bayes_share.sharing.members_interface import Members
from bayes_share.tensors.trees import Tree, num_examples, rows, to_device

_ROUNDING = {torch.float64: 1e-6}
_LEAST_ROUNDING = 1e-3  # of any other dtype, also where products are taken in TensorFloat-32

_NEEDED = "a last-layer Laplace approximation needs a network that ends with a linear layer of its own"


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
    def rows(self, source: OutputLayer, x: Tree) -> tuple[Float[Tensor, "row input"], Tensor]:
        """Run the network.

        Args:
            source: that the outputs come from this layer, and how they are arranged.
            x: a batch.

        Returns:
            What multiplies the unknown numbers in each row of the outputs (a 1 for the bias); and the outputs.
        """
        inputs, outputs = source.inputs(partial(outputs_of, self.network), x)
        columns = {"weight": inputs, "bias": inputs.new_ones(len(inputs), 1)}
        return torch.cat([columns[part] for part in self.parts], 1), outputs


def last_layers(model: Model, name: str) -> list[LastLayer]:
    """The last layer of each member, by its name."""
    return _with_layer(model, _members(model), name)


def find_last_layers(model: Model, x: Tree) -> list[tuple[LastLayer, OutputLayer]]:
    """The last layer of each member, shown by a few examples to be one, and how the outputs come from it.

    What is added to the outputs of the layer, and nothing else, must be added to the network's, wherever it is there
    (`find_output_layer`); and a change of its weight and bias, as the member uses them, must change the network's
    outputs by that change times the layer's inputs.

    Args:
        model: stays as it is.
        x: a few examples.

    Raises:
        InputError: there is no such layer, it is frozen, or the outputs do not follow it.
    """
    x = model.entered(to_device(x, next(model.parameters()).device))
    networks = _members(model)
    sources = [_source(network, x) for network in networks]
    name = sources[0].name
    layers = _with_layer(model, networks, name)
    called = _called(name)
    if not layers[0].parts:
        raise InputError(f"the last layer, {called}, is frozen: there is nothing to approximate")
    for source, layer in zip(sources, layers, strict=True):
        if source.name != name or not _follows(layer, source, x):
            raise InputError(
                f"the outputs do not change in proportion to the weight of the last layer, {called}: something changes "
                f"them afterwards or uses the weight elsewhere; {_NEEDED}"
            )
    return list(zip(layers, sources, strict=True))


def layer_of(model: Model, name: str) -> nn.Module:
    """The layer of this name of the network in the model, with what its weight is made of."""
    network = model.network.network if isinstance(model.network, Members) else model.network
    return network.get_submodule(name)


def is_of_bias(parameter: str) -> bool:
    """Whether a parameter of a linear layer, by its name in the layer, is of its bias and not of its weight."""
    return parameter.removeprefix("parametrizations.").startswith("bias")


@torch.no_grad()
def _follows(last: LastLayer, source: OutputLayer, x: Tree) -> bool:
    """Whether a change of the layer changes the outputs as it must, to rounding; leaves the layer as it is."""
    kept = {part: value.clone() for part, value in last.unknown.items()}
    inputs, outputs = last.rows(source, x)
    noise = torch.Generator().manual_seed(0)
    scale = max(1.0, *(float(value.abs().max()) for value in kept.values()))
    numbers = torch.randn(len(next(iter(kept.values()))), inputs.shape[1], generator=noise, dtype=torch.float64)
    change = (scale * numbers).to(inputs)
    last.shift(change)
    found = outputs_of(last.network, x)
    for part, value in last.unknown.items():
        value.copy_(kept[part])
    torch.clear_autocast_cache()
    before, after = (source.table(each).double() for each in (outputs, found))
    inputs, change = inputs.double(), change.double()[source.columns.to(inputs.device)]
    size = before.abs() + inputs.abs() @ change.abs().T
    rounding = _ROUNDING.get(source.dtype, max(_LEAST_ROUNDING, 8 * torch.finfo(source.dtype).eps))
    return bool(((after - before - inputs @ change.T).abs() <= rounding * size + 1e-30).all())


@torch.no_grad()
def _source(network: nn.Module, x: Tree, examples: int = FEW) -> OutputLayer:
    try:
        source = find_output_layer(partial(outputs_of, network), rows(x, slice(examples)), batch_axis=0)
    except NoOutputLayer as error:
        raise InputError(f"{error}: {_NEEDED}") from error
    except Exception:  # whatever a network raises that takes batches of one size alone
        if examples >= num_examples(x):
            raise
        return _source(network, x, num_examples(x))
    if source.is_called_again:
        raise InputError(
            f"the last layer, {_called(source.name)}, is called more than once for a batch, so it is not only the last"
        )
    return source


def _members(model: Model) -> list[nn.Module]:
    """A plain network of its own for each member, in eval mode."""
    network = model.network
    if model.ensemble_size > model.rows_each:
        raise InputError("laplace takes members with a last layer each, and members in one network (MIMO) share it")
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
