"""The last layer of a network, and a trial that checks that the outputs are linear in its weight."""

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

_ROUNDING = {torch.float64: 1e-6}  # of a product, relative to the sum of its absolute terms
_MIN_ROUNDING = 1e-3  # for other dtypes, also if products are computed in TensorFloat-32
_EPSILONS = 8  # of an output, which may be much larger than what the layer contributes to it

_REQUIREMENT = (
    "a last-layer Laplace approximation requires a network whose outputs are those of a linear layer that is called "
    "once and used nowhere else"
)


@dataclass(frozen=True, eq=False)
class LastLayer:
    """The last layer of one member.

    Args:
        network: the member as a separate plain network in eval mode. In it the layer is an `nn.Linear`, whose
            parameters are the weight and bias that the member uses.
        name: name of the layer in the network.
        parts: the trained (not frozen) parts of the layer: "weight", "bias" or both.
    """

    network: nn.Module
    name: str
    parts: tuple[str, ...]

    @property
    def layer(self) -> nn.Module:
        """The layer."""
        return self.network.get_submodule(self.name)

    @property
    def trained(self) -> dict[str, Tensor]:
        """The trained weight and bias, as the member uses them."""
        return {part: getattr(self.layer, part).detach() for part in self.parts}

    @torch.no_grad()
    def shift(self, change: Float[Tensor, "output input"]) -> None:
        """Add to the trained weight and bias in place. `change` has the columns of the weight, then of the bias."""
        for parameter in self.trained.values():
            width = parameter.shape[1] if parameter.ndim == 2 else 1
            parameter.add_(change[:, :width].reshape(parameter.shape))
            change = change[:, width:]
        torch.clear_autocast_cache()  # the cached low-precision weights do not follow in-place changes

    @torch.no_grad()
    def rows(self, source: OutputLayer, x: Tree) -> tuple[Float[Tensor, "row input"], Tensor]:
        """Run the network.

        Args:
            source: how the network's outputs are arranged from those of the layer.
            x: a batch.

        Returns:
            The layer's inputs for each row of the outputs, with a 1 for the bias and only for trained parts; and the
            outputs.
        """
        inputs, outputs = source.inputs(partial(outputs_of, self.network), x)
        columns = {"weight": inputs, "bias": inputs.new_ones(len(inputs), 1)}
        return torch.cat([columns[part] for part in self.parts], 1), outputs


def last_layers(model: Model, name: str) -> list[LastLayer]:
    """Return the last layer of each member, given its name."""
    return _with_layer(model, _members(model), name)


def find_last_layers(model: Model, x: Tree) -> list[tuple[LastLayer, OutputLayer]]:
    """Find the last layer of each member, and how the network's outputs are arranged from those of the layer.

    A trial on a few examples checks two conditions. Values added to the outputs of the layer must be added to the
    network's outputs, without any other change (`find_output_layer`). A change of the weight and bias, as the member
    uses them, must change the network's outputs by the product of the change and the layer's inputs.

    Args:
        model: the model; it is not changed.
        x: a few examples.

    Raises:
        InputError: if there is no such layer, it is frozen, or the outputs are not linear in its weight and bias.
    """
    x = model.entered(to_device(x, next(model.parameters()).device))
    networks = _members(model)
    sources = [_output_layer(network, x) for network in networks]
    name = sources[0].name
    layers = _with_layer(model, networks, name)
    shown = _shown_name(name)
    if not layers[0].parts:
        raise InputError(f"the last layer, {shown}, is frozen: there is nothing to approximate")
    for source, layer in zip(sources, layers, strict=True):
        if source.name != name or not _is_linear_in_layer(layer, source, x):
            raise InputError(
                f"the outputs are not linear in the weight of the last layer, {shown}: they are changed afterwards, or "
                f"the weight is used elsewhere; {_REQUIREMENT}"
            )
    return list(zip(layers, sources, strict=True))


def layer_of(model: Model, name: str) -> nn.Module:
    """Return the layer of this name in the model's network, with the parameters that its weight is computed from."""
    network = model.network.network if isinstance(model.network, Members) else model.network
    return network.get_submodule(name)


def is_of_bias(parameter: str) -> bool:
    """Return whether a parameter of a linear layer, given by its name in the layer, belongs to the bias."""
    return parameter.removeprefix("parametrizations.").startswith("bias")


@torch.no_grad()
def _is_linear_in_layer(last: LastLayer, source: OutputLayer, x: Tree) -> bool:
    """Return whether a change of the layer changes the outputs linearly, up to rounding. The layer is restored."""
    kept = {part: value.clone() for part, value in last.trained.items()}
    weights = torch.cat([value.reshape(len(value), -1) for value in kept.values()], 1).double()
    inputs, outputs = last.rows(source, x)
    noise = torch.Generator().manual_seed(0)
    scale = max(1.0, *(float(value.abs().max()) for value in kept.values()))
    white = torch.randn(len(next(iter(kept.values()))), inputs.shape[1], generator=noise, dtype=torch.float64)
    change = (scale * white).to(inputs)
    last.shift(change)
    found = outputs_of(last.network, x)
    for part, value in last.trained.items():
        value.copy_(kept[part])
    torch.clear_autocast_cache()
    before, after = (source.table(each).double() for each in (outputs, found))
    columns = source.columns.to(inputs.device)
    inputs, change, weights = inputs.double(), change.double()[columns], weights[columns]
    of_outputs = _EPSILONS * torch.finfo(source.dtype).eps
    of_products = max(_ROUNDING.get(source.dtype, _MIN_ROUNDING), of_outputs)
    error = of_outputs * (before.abs() + after.abs()) + of_products * (inputs.abs() @ (change.abs() + weights.abs()).T)
    return bool(((after - before - inputs @ change.T).abs() <= error + 1e-30).all())


@torch.no_grad()
def _output_layer(network: nn.Module, x: Tree, examples: int = FEW) -> OutputLayer:
    try:
        source = find_output_layer(partial(outputs_of, network), rows(x, slice(examples)), batch_axis=0)
    except NoOutputLayer as error:
        raise InputError(f"{error}: {_REQUIREMENT}") from error
    except Exception:  # any error of a network that requires a certain batch size
        if examples >= num_examples(x):
            raise
        return _output_layer(network, x, num_examples(x))
    if source.is_called_again:
        raise InputError(
            f"the last layer, {_shown_name(source.name)}, is called more than once per batch; {_REQUIREMENT}"
        )
    return source


def _members(model: Model) -> list[nn.Module]:
    """Return a separate plain network in eval mode for each member."""
    network = model.network
    if model.ensemble_size > model.rows_each:
        raise InputError("laplace does not support MIMO, whose members share one last layer")
    members = range(network.ensemble_size) if isinstance(network, Ensemble) else (None,)
    return [fold(network, member).eval() for member in members]


def _with_layer(model: Model, networks: list[nn.Module], name: str) -> list[LastLayer]:
    parts = _trained_parts(layer_of(model, name))
    return [LastLayer(_with_plain_layer(network, name), name, parts) for network in networks]


def _trained_parts(layer: nn.Module) -> tuple[str, ...]:
    """Return "weight" if any parameter that the weight is computed from is trained, and "bias" likewise."""
    are_of_bias = {is_of_bias(name) for name, parameter in layer.named_parameters() if parameter.requires_grad}
    return tuple(part for part, of_bias in (("weight", False), ("bias", True)) if of_bias in are_of_bias)


@torch.no_grad()
def _with_plain_layer(network: nn.Module, name: str) -> nn.Module:
    """Return the network with a plain linear layer of the same values in place of a layer with computed values."""
    layer: Any = network.get_submodule(name)
    if not has_computed_weight(layer) and isinstance(layer.bias, nn.Parameter | None):
        return network
    if prune.is_pruned(layer):
        raise InputError(
            f"the last layer, {_shown_name(name)}, is pruned, and the posterior would include the pruned weights: make "
            f"the pruning permanent with torch.nn.utils.prune.remove"
        )
    example = next(layer.parameters())
    layer(torch.zeros(1, layer.in_features, dtype=example.dtype, device=example.device))  # hooks compute the weight
    sizes, options = (layer.in_features, layer.out_features, layer.bias is not None), {"dtype": example.dtype}
    plain = nn.utils.skip_init(nn.Linear, *sizes, device=example.device, **options)
    for part in ("weight", "bias") if layer.bias is not None else ("weight",):
        getattr(plain, part).copy_(getattr(layer, part))
    if not name:
        return plain.eval()
    network.set_submodule(name, plain.eval())
    return network


def _shown_name(name: str) -> str:
    return name or "the network itself"
