"""Local reparametrisation: layers with normal weights sample their outputs for each example instead."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.models.model import Model
from bayes_share.models.program import Program
from bayes_share.sharing.member_networks import under_all_names
from bayes_share.sharing.members_interface import Feed
from bayes_share.tensors.functional import call_under
from bayes_share.tensors.trees import Tree

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose outputs are linear in their weight, matched by exact type."""

Layers = Mapping[str, nn.Module]
"""Layers by the name of their weight in the model."""


def layers_of(program: Program) -> dict[str, nn.Module]:
    """Return the layers of a program's model whose weight is latent and used by no other layer."""
    latent = {entry.parameter for entry in program.latents}
    owners: dict[nn.Parameter, list[tuple[str, nn.Module]]] = {}
    for name, module in program.model.named_modules(remove_duplicate=False):
        for own, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            owners.setdefault(parameter, []).append((f"{name}.{own}", module))
    return {
        name: module
        for (name, module), *others in owners.values()
        if not others and type(module) in LAYERS and name in latent and name.endswith(".weight")
    }


class Drawing(nn.Module):
    """A model with layers that sample their outputs within `drawing_outputs`.

    Args:
        model: the model of the layers.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.scales: Mapping[str, Tensor] = {}

    def forward(self, scales: Mapping[str, Tensor], x: Tree, feed: Feed) -> Tensor:
        """Return the model's outputs.

        The layers use these scales until the next call, also if activations are recomputed in the backward pass.
        """
        self.scales = scales
        return self.model(x, feed)

    def forward_with(
        self, values: Mapping[str, Tensor], scales: Mapping[str, Tensor], x: Tree, feed: Feed
    ) -> Float[Tensor, "member part *output"]:
        """Return the outputs, like `Model.forward_with`.

        Args:
            values: parameters and buffers, including the means of the layers' weights.
            scales: standard deviations of these weights, in their shapes, by the name of the weight.
            x: ``[batch, ...]``.
            feed: as in `Model.forward_with`.
        """
        named = {f"model.{name}": value for name, value in under_all_names(self.model, values).items()}
        return call_under(self, named, (dict(scales), x, feed))


@contextmanager
def drawing_outputs(model: Model, layers: Layers) -> Iterator[Drawing]:
    """Make layers that are called with the mean of their weight add noise to their outputs.

    The noise has the variance of the outputs: ``y ~ N(x * μ, x² * σ²)``, independent for each output (Kingma, Salimans
    & Welling 2015, arXiv 1506.02557, eq. 6). Run the backward pass inside the context too, because a network may call
    layers again in it.

    Args:
        model: the model of the layers.
        layers: the layers by the name of their weight.
    """
    drawing = Drawing(model)

    def hook(name: str) -> Any:
        def add_noise(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            variance = _apply_weight(layer, inputs[0].square(), drawing.scales[name].square().to(inputs[0].dtype))
            # The square root has no gradient at 0, the variance of an output that receives no input.
            return output + variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt() * torch.randn_like(output)

        return add_noise

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield drawing
    finally:
        for handle in handles:
            handle.remove()


def _apply_weight(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight)
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer._conv_forward(x, weight, None)
