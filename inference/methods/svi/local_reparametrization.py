"""Local reparametrisation: layers whose weights are normal draw their outputs, for each example, instead."""

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
"""Those whose outputs are linear in their weight, by exact type."""

Layers = Mapping[str, nn.Module]
"""Layers by the name that their weight has in the model."""


def layers_of(program: Program) -> dict[str, nn.Module]:
    """The layers of a program's model whose weight is latent and no other layer's."""
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
    """A model some of whose layers draw their outputs, while `drawing_outputs` lasts.

    Args:
        model: that the layers are of.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.scales: Mapping[str, Tensor] = {}

    def forward(self, scales: Mapping[str, Tensor], x: Tree, feed: Feed) -> Tensor:
        """The model's outputs; from now on, a recomputation in backward included, layers draw with these scales."""
        self.scales = scales
        return self.model(x, feed)

    def forward_with(
        self, values: Mapping[str, Tensor], scales: Mapping[str, Tensor], x: Tree, feed: Feed
    ) -> Float[Tensor, "member part *output"]:
        """The outputs as `Model.forward_with` gives them.

        Args:
            values: of parameters and buffers, with the means of the layers' weights among them.
            scales: the standard deviation of each of these weights, in its shape, by the name of the weight.
            x: ``[batch, ...]``.
            feed: as in `Model.forward_with`.
        """
        named = {f"model.{name}": value for name, value in under_all_names(self.model, values).items()}
        return call_under(self, named, (dict(scales), x, feed))


@contextmanager
def drawing_outputs(model: Model, layers: Layers) -> Iterator[Drawing]:
    """Have layers, called with the mean of their weight, add noise to their outputs with the variance that they have.

    ``y ~ N(x * μ, x² * σ²)``, independent for each output (Kingma, Salimans & Welling 2015, arXiv 1506.02557, eq. 6).
    The backward pass belongs into the context too: a network may call layers again in it.

    Args:
        model: that the layers are of.
        layers: by the name of their weight.
    """
    drawing = Drawing(model)

    def hook(name: str) -> Any:
        def add_noise(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            variance = _apply(layer, inputs[0].square(), drawing.scales[name].square().to(inputs[0].dtype))
            # The root has no gradient at 0, which is where no input reaches.
            return output + variance.clamp(min=torch.finfo(variance.dtype).tiny).sqrt() * torch.randn_like(output)

        return add_noise

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield drawing
    finally:
        for handle in handles:
            handle.remove()


def _apply(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight)
    assert isinstance(layer, nn.modules.conv._ConvNd)
    return layer._conv_forward(x, weight, None)
