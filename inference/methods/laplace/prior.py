"""The user's normal priors of a last layer, for the weight and bias as a member uses them."""

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference.methods.laplace.last_layer import is_of_bias, layer_of
from bayes_share.inference.step.named_priors import normal_prior
from bayes_share.layers.copying import copy_of
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.models.model import Latent, Model


def named_scales(model: Model, member: int, name: str) -> dict[str, Tensor]:
    """Return the standard deviations of the user's normal priors of a linear layer, for a member's weight and bias.

    Args:
        model: the model with the rules for priors.
        member: index of the member in the ensemble; 0 for a single network.
        name: name of the layer in the network.

    Returns:
        A dict with "weight" and "bias" if a rule selects them, each in the shape of the member's.

    Raises:
        InputError: if a prior is flat or not normal, or selects a parameter that the weight is computed from or a base
            weight that is shared by several blocks or terms of the layer.
    """
    layer = layer_of(model, name)
    latents = {model.get_parameter(key): latent for key, latent in model.named_in_priors().items()}
    scales: dict[str, Tensor] = {}
    for own, parameter in layer.named_parameters():
        if parameter not in latents or own in getattr(layer, "added_parameters", ()):
            continue  # factors are treated as known
        if own not in ("weight", "bias"):
            part = "bias" if is_of_bias(own) else "weight"
            raise InputError(
                f"the last layer's {part} is computed from {own}, whose prior is not a prior of the {part} itself: "
                f"remove it from `priors`, and set prior_precision"
            )
        scales[own] = _scale(latents[parameter], f"the last layer's {own}")
    if not isinstance(layer, Rank1Layer):
        return scales
    if "weight" in scales and layer.blocks() != (1, 1):
        raise InputError(
            "blocks of the last layer share its base weight, so its prior does not make the weights independent: "
            "remove it from `priors`, and set prior_precision"
        )
    if "weight" in scales and layer.has_further_terms():
        raise InputError(
            "the last layer's weight is a sum of terms, so a prior of its base weight is not a prior of the weight: "
            "remove it from `priors`, and set prior_precision"
        )
    return _member_scales(layer, scales, member)


def _scale(latent: Latent | None, what: str) -> Tensor:
    if latent is None:
        raise InputError(f"{what} has a flat prior, under which laplace may have no posterior: use a Normal prior")
    return normal_prior(latent, "laplace")[1]


@torch.no_grad()
def _member_scales(layer: nn.Module, scales: dict[str, Tensor], member: int) -> dict[str, Tensor]:
    """Return the scales for the weight and bias that a member uses.

    A weight is a sum of independent values, each multiplied by factors and mixture coefficients. Its variance is the
    same computation with all of them squared.
    """
    squared = copy_of(layer)
    for own, parameter in squared.named_parameters():
        parameter.copy_(scales[own].square() if own in scales else parameter.square())
    for buffer in squared.buffers():  # signs generated from seeds
        if buffer.is_floating_point():
            buffer.square_()
    return {part: values.sqrt() for part, values in squared.member_tensors(member).items() if part in scales}  # type: ignore[operator]
