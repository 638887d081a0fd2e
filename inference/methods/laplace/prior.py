"""The prior of a last layer that a model's user named, for the weight and bias as a member uses them."""

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference.methods.laplace.last_layer import is_of_bias, layer_of
from bayes_share.inference.step.named_priors import normal_prior
from bayes_share.layers.copying import copy_of
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.models.model import Latent, Model


def named_scales(model: Model, member: int, name: str) -> dict[str, Tensor]:
    """The standard deviations of the user's normal priors of a linear layer, for a member's weight and bias.

    Args:
        model: whose rules name them.
        member: of the ensemble; 0 where there is none.
        name: of the layer in the network.

    Returns:
        "weight" and "bias", those that a rule names, each of the shape of the member's own.

    Raises:
        InputError: a prior that is flat or not normal; one of what a weight is computed from; one of a base weight that
            several blocks of the layer share.
    """
    layer = layer_of(model, name)
    latents = {model.get_parameter(key): latent for key, latent in model.named_in_priors().items()}
    scales: dict[str, Tensor] = {}
    for own, parameter in layer.named_parameters():
        if parameter not in latents or own in getattr(layer, "added_parameters", ()):
            continue  # what multiplies the weight is given
        if own not in ("weight", "bias"):
            part = "bias" if is_of_bias(own) else "weight"
            raise InputError(
                f"the last layer's {part} is computed from {own}, whose prior is not one of the {part} as it is used: "
                f"leave it out of `priors`, and give a prior_precision"
            )
        scales[own] = _scale(latents[parameter], f"the last layer's {own}")
    if not isinstance(layer, Rank1Layer):
        return scales
    if "weight" in scales and layer.blocks() != (1, 1):
        raise InputError(
            "blocks of the last layer share its base weight, so a prior of that is none of independent numbers: leave "
            "it out of `priors`, and give a prior_precision"
        )
    if "weight" in scales and layer.has_further_terms():
        raise InputError(
            "the last layer's weight is a sum of terms, and a prior of its base weight is none of it: leave it out of "
            "`priors`, and give a prior_precision"
        )
    return _of_member(layer, scales, member)


def _scale(latent: Latent | None, what: str) -> Tensor:
    if latent is None:
        raise InputError(f"{what} has a flat prior, under which laplace may have no posterior: give it a Normal")
    return normal_prior(latent, "laplace")[1]


@torch.no_grad()
def _of_member(layer: nn.Module, scales: dict[str, Tensor], member: int) -> dict[str, Tensor]:
    """The scales for the weight and bias that a member uses.

    A weight is a sum of independent numbers, each times a factor and a share: so variances take the squares of these.
    """
    squared = copy_of(layer)
    for own, parameter in squared.named_parameters():
        parameter.copy_(scales[own].square() if own in scales else parameter.square())
    for buffer in squared.buffers():  # signs that are made from seeds
        if buffer.is_floating_point():
            buffer.square_()
    return {part: values.sqrt() for part, values in squared.member_tensors(member).items() if part in scales}  # type: ignore[operator]
