"""Draws of parameters from the posterior that an algorithm has learned, by the names of the user's network."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Inference, Part
from bayes_share.inference.draws.forward import check_state
from bayes_share.models.model import Model
from bayes_share.priors.sites import prefix_of
from bayes_share.sharing.kinds import parameter_kinds
from bayes_share.sharing.members import Ensemble

Names = str | Callable[[str], bool] | None
"""Which parameters: a name or a pattern such as ``"layers.*.weight"``, a predicate of a name, or None for all."""


def posterior_samples(
    algorithm: Inference[Any], state: Any, num_samples: int = 1, names: Names = None
) -> dict[str, Shaped[Tensor, "draw ..."]]:
    """Draws of the parameters, the same ones as `predict` predicts with: draw i is ``algorithm.draw(state, i)``.

    There is an entry for each parameter that the algorithm draws, in the coordinates of the user's network (a bounded
    prior's within its bounds). Parameters that are points are left out, and so are buffers. SGHMC keeps its parameters
    without a prior with each sample; they are in. Of `LastLayerLaplace` it is the last layer as each member uses it,
    with the member's factors multiplied in.

    Draws of SGHMC and NUTS are those that the chain kept, the latest first and then far apart, as `spread` has it, and
    begin anew after the last. ``values[chain_order(state.num_kept, num_samples)]`` has them in the order of the chain,
    each once, as effective sample sizes and r-hat need them.

    Args:
        algorithm: that made the state.
        state: after training.
        num_samples: draws.
        names: which parameters to keep draws of; the others take no memory.

    Returns:
        Tensors on the CPU by name, as in rules for priors: "layers.1.weight", "likelihood.log_noise", and
        "layers.1.weight_scale" for the scale of a hierarchical prior. Their shapes are ``[draw, ...]``, or
        ``[draw, member, ...]`` for what each member of an ensemble has of its own. Where several networks are side by
        side (a deep ensemble; the chains of NUTS, one member after the other and then the next chain of each), all have
        the axis, with the members of the prediction; what the members of one network share is repeated for each.

    Raises:
        InputError: fewer than one draw, no state or another algorithm's, an algorithm or a state without draws of
            parameters, or `names` that choose nothing.

    >>> from bayes_share.inference import IVON, fit_tensors
    >>> from bayes_share.models.likelihoods import Gaussian
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> algorithm, model = IVON(), Model(torch.nn.Linear(1, 1), Gaussian(0.1))
    >>> state = fit_tensors(algorithm, model, x, 2 * x, 100)
    >>> {name: list(values.shape) for name, values in posterior_samples(algorithm, state, 8).items()}
    {'weight': [8, 1, 1], 'bias': [8, 1]}
    """
    if num_samples < 1:
        raise InputError(f"at least 1 draw is taken, not {num_samples}")
    check_state(algorithm, state)
    is_asked = _chooser(names)
    draws: list[dict[str, Tensor]] = []
    for sample in range(num_samples):
        parts = algorithm.draw(state, sample).parts
        draws.append(drawn_values(parts, is_asked))
        if not draws[-1] and (drawn := {name: None for part in parts for name in by_users_name(part)}):
            raise InputError(f"names={names!r} chooses no parameter: drawn are {', '.join(drawn)}")
        if not draws[-1]:
            reason = algorithm.not_drawn() or "there are draws only once it is trained"
            raise InputError(f"this state of {type(algorithm).__name__} has no draws of parameters: {reason}")
    # A chain that was begun before scales of hierarchical priors were kept has draws without them.
    everywhere = [name for name in draws[0] if all(name in draw for draw in draws)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in everywhere}


def drawn_values(
    parts: Sequence[Part], is_asked: Callable[[str], bool] = lambda name: True
) -> dict[str, Shaped[Tensor, "..."]]:
    """What is drawn of networks side by side, on the CPU, by the names that are asked for."""
    found: dict[str, list[Tensor]] = {}
    for part in parts:
        size = part.model.ensemble_size
        for name, (value, is_own) in by_users_name(part).items():
            if is_asked(name):
                if len(parts) > 1:  # also where a layer has one row, which serves all members
                    value = value.expand(size, *value.shape[1:]) if is_own else value.expand(size, *value.shape)
                found.setdefault(name, []).append(value.detach().cpu())
    return {name: torch.cat(values) if len(parts) > 1 else values[0] for name, values in found.items()}


def users_name(model: Model, parameter: str) -> str:
    """The name in the user's network of a parameter of a model; the likelihood's begin with "likelihood."."""
    return parameter.removeprefix(f"network.{prefix_of(model.network)}")


def by_users_name(part: Part) -> dict[str, tuple[Tensor, bool]]:
    """What is drawn of a part, by the names of the user's network, and whether it has a row for each member."""
    model = part.model
    kinds = parameter_kinds(model)
    found = {
        users_name(model, name): (value, kinds[name] != "base") for name, value in part.values.items() if name in kinds
    }
    found |= {name: (value, False) for name, value in part.scales.items()}
    is_ensemble = isinstance(model.network, Ensemble)
    return found | {name: (value if is_ensemble else value[0], is_ensemble) for name, value in part.used.items()}


def _chooser(names: Names) -> Callable[[str], bool]:
    if names is None:
        return lambda name: True
    return names if callable(names) else lambda name: fnmatchcase(name, names)
