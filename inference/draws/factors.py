"""The rank-1 factors of the members under the draws of an algorithm."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.inference.algorithm import Inference, Part
from bayes_share.inference.draws.forward import check_state
from bayes_share.inference.draws.posterior import drawn_values
from bayes_share.models.model import Model
from bayes_share.sharing.kinds import parameter_kinds


def factor_draws(
    algorithm: Inference[Any], state: Any, num_samples: int = 1
) -> dict[str, Float[Tensor, "draw member ..."]]:
    """Return the factors r and s of every layer under the first draws, which are the draws that `predict` uses.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after any number of steps.
        num_samples: number of draws. A single one is returned if the algorithm does not draw the factors: if they are
            point estimates, or if it draws something else (dropout masks, or the weight of the last layer).

    Returns:
        ``[draw, member, channel]`` on the CPU, by names in the user's network, such as "layers.1.r"; an empty dict if
        the network has no factors. The members of several networks, as in a deep ensemble, are concatenated.
    """
    check_state(algorithm, state)
    first = algorithm.draw(state, 0)
    is_drawn = any(name in part.values for part in first.parts for name in _factor_names(part.model))
    others = (algorithm.draw(state, sample) for sample in range(1, num_samples if is_drawn else 1))
    draws = [drawn_values([_factors(part) for part in forward.parts]) for forward in (first, *others)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


def _factors(part: Part) -> Part:
    """Return a part whose values are its factors, drawn or not."""
    names = _factor_names(part.model)
    return Part(part.model, {name: part.values.get(name, part.model.get_parameter(name)) for name in names})


def _factor_names(model: Model) -> list[str]:
    return [name for name, kind in parameter_kinds(model).items() if kind == "factor"]
