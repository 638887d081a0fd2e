"""Independent initial weights for each member, for layers that members own."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factored import Factored


def drawn_anew(layer: nn.Module, members: int, name: str) -> dict[str, Tensor]:
    """Draw a layer's initial parameters once for each member.

    Args:
        layer: A plain torch layer. It is not changed.
        members: Number of members.
        name: The layer's name, for messages.

    Returns:
        Each parameter as ``[member, *shape]``, drawn from torch's global CPU generator.

    Raises:
        InputError: The layer shares its weight within the network.
    """
    if isinstance(layer, Factored):
        raise InputError(f'init "fresh" requires plain layers, and {name} shares its weight within the network')
    drawn = []
    for _ in range(members):
        one = deepcopy(layer) if next(layer.parameters()).is_meta else deepcopy(layer).cpu()
        for part in reversed(list(one.modules())):  # inner modules first
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
        drawn.append(dict(one.named_parameters()))
    return {key: torch.stack([of_one[key].detach() for of_one in drawn]) for key in drawn[0]}


def have_rows(layer: nn.Module, rows: dict[str, Tensor]) -> None:
    """Copy the result of `drawn_anew` into a layer that members own, in place."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name in rows:
                parameter.copy_(rows[name])
