"""The rank-1 factors under the draws of an algorithm: what a posterior says of the members."""

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
    check_state(algorithm, state)
    first = algorithm.draw(state, 0)
    is_drawn = any(name in part.values for part in first.parts for name in _factor_names(part.model))
    others = (algorithm.draw(state, sample) for sample in range(1, num_samples if is_drawn else 1))
    draws = [drawn_values([_factors(part) for part in forward.parts]) for forward in (first, *others)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in draws[0]}


def _factors(part: Part) -> Part:
    """The factors of a part, be they drawn or not, as all that is drawn of it."""
    names = _factor_names(part.model)
    return Part(part.model, {name: part.values.get(name, part.model.get_parameter(name)) for name in names})


def _factor_names(model: Model) -> list[str]:
    return [name for name, kind in parameter_kinds(model).items() if kind == "factor"]
