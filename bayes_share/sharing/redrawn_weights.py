"""Weights of the members' own that each of them draws anew, as separate networks do."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.factored import Factored


def drawn_anew(layer: nn.Module, members: int, name: str) -> dict[str, Tensor]:
    """What a layer's parameters would be if it were made once for each member.

    Args:
        layer: a plain one, of torch's own; is not changed.
        members: how many.
        name: of the layer, for messages.

    Returns:
        For each parameter ``[member, *shape]``, drawn from torch's global generator on the CPU.

    Raises:
        InputError: a layer that shares its weights within the network.
    """
    if isinstance(layer, Factored):
        raise InputError(f'init "fresh" requires plain layers, and {name} shares its weight within the network')
    drawn = []
    for _ in range(members):
        one = deepcopy(layer) if next(layer.parameters()).is_meta else deepcopy(layer).cpu()
        for part in reversed(list(one.modules())):  # what is inside first
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
        drawn.append(dict(one.named_parameters()))
    return {key: torch.stack([of_one[key].detach() for of_one in drawn]) for key in drawn[0]}


def have_rows(layer: nn.Module, rows: dict[str, Tensor]) -> None:
    """Put what was `drawn_anew` into a layer whose parameters are the members' own, in place."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name in rows:
                parameter.copy_(rows[name])
