"""The rank-1 factors under the draws of an algorithm: what a posterior says of the members."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.inference.base import Forward, Inference
from bayes_share.models.model import Model
from bayes_share.sharing.kinds import parameter_kinds
from bayes_share.sites import prefix_of


def factor_draws(
    algorithm: Inference[Any], state: Any, num_samples: int = 1
) -> dict[str, Float[Tensor, "draw member ..."]]:
    """The factors r and s of every layer under the first draws, those that `predict` predicts with.

    Args:
        algorithm: that made the state.
        state: after as many steps as you like.
        num_samples: draws; there is one where an algorithm does not draw the factors: where they are points, or where
            the draw is of something else (dropout masks; the weight that a last layer uses).

    Returns:
        ``[draw, member, channel]`` on the CPU, by the names of the user's network, such as "layers.1.r"; none where
        there are no factors. Networks side by side, as of a deep ensemble, are members one after the other.
    """
    first = algorithm.draw(state, 0)
    is_drawn = any(name in values for model, values in first.parts for name in _names(model).values())
    others = (algorithm.draw(state, sample) for sample in range(1, num_samples if is_drawn else 1))
    draws = [_factors(forward) for forward in (first, *others)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


def _factors(forward: Forward) -> dict[str, Tensor]:
    """The factors of all members under one draw, ``[member, channel]``."""
    found: dict[str, list[Tensor]] = {}
    for model, values in forward.parts:
        for name, parameter in _names(model).items():
            value = values[parameter] if parameter in values else model.get_parameter(parameter)
            found.setdefault(name, []).append(value.detach().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _names(model: Model) -> dict[str, str]:
    """The factors' names in the model, by those in the user's network."""
    prefix = prefix_of(model.network)
    kinds = parameter_kinds(model.network)
    return {name.removeprefix(prefix): f"network.{name}" for name, kind in kinds.items() if kind == "factor"}
