"""Draws: models with given parameter values, as prediction functions."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Forward, Inference, Part, State
from bayes_share.models.model import Model
from bayes_share.tensors.trees import Tree, to_device


def drawn(
    model: Model,
    values: Mapping[str, Tensor] = MappingProxyType({}),
    scales: Mapping[str, Tensor] = MappingProxyType({}),
) -> Forward:
    """Return a model in eval mode with other values of some parameters and buffers, as a draw.

    The model is not changed.

    Args:
        model: the model; it is called, not copied.
        values: the values, by their names in the model.
        scales: scales of hierarchical priors, by the names of their sites. The network does not depend on them.
    """
    device = next(model.parameters()).device

    def forward(x: Tree) -> Tensor:
        with evaluating(model), torch.no_grad():
            x = to_device(x, device)
            return model.forward_with(values, x) if values else model(x)

    return Forward(forward, (Part(model, values, scales),))


def device_of_draw(forward: Forward) -> torch.device:
    """Return the device on which a draw is computed."""
    return next(forward.parts[0].model.parameters()).device


def check_state(algorithm: Inference[Any], state: Any) -> None:
    """Raise InputError if the algorithm cannot draw from the state."""
    if not isinstance(state, State):
        raise InputError(
            f"prediction requires the state that fit returns, not {type(state).__name__}"
            + (": call a network directly, as net(x)" if isinstance(state, nn.Module) else "")
        )
    made = get_type_hints(type(algorithm).init).get("return")
    if isinstance(made, type) and not isinstance(state, made):
        raise InputError(
            f"this state is of type {type(state).__name__}, and {type(algorithm).__name__} requires {made.__name__}: "
            f"pass the algorithm that the state was trained with"
        )


def side_by_side(forwards: Sequence[Forward]) -> Forward:
    """Combine draws of several networks into one, with their members concatenated."""
    parts = tuple(part for forward in forwards for part in forward.parts)
    return Forward(lambda x: torch.cat([forward(x) for forward in forwards]), parts)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and restore the mode of each module afterwards."""
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in was_training:
            if "training" in vars(module):  # bypasses `Module.__setattr__`, which takes as long as a small layer
                vars(module)["training"] = True
            else:
                module.training = True
