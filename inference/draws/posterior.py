"""Posterior draws of parameters, by their names in the user's network."""

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
"""Selects parameters: a name or a pattern such as ``"layers.*.weight"``, a predicate of a name, or None for all."""


def posterior_samples(
    algorithm: Inference[Any], state: Any, num_samples: int = 1, names: Names = None
) -> dict[str, Shaped[Tensor, "draw ..."]]:
    """Return draws of the parameters, the same draws that `predict` uses: draw i is ``algorithm.draw(state, i)``.

    The dict has an entry for each parameter that the algorithm draws, in the coordinates of the user's network (a
    parameter with a bounded prior is within its bounds). Point estimates and buffers are left out. SGHMC stores
    parameters without a prior with each sample; they are included. For `LastLayerLaplace`, the entry is the last layer
    as each member uses it, with the member's factors multiplied in.

    Draws of SGHMC and NUTS are the samples that the chain kept, the latest first and the following far apart (see
    `spread`); they repeat after the last sample. ``values[chain_order(state.num_kept, num_samples)]`` has each sample
    once, in the order of the chain, as effective sample sizes and r-hat require.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after training.
        num_samples: number of draws.
        names: the parameters to return. Draws of others are not kept in memory.

    Returns:
        Tensors on the CPU by name, with the names that rules for priors use: "layers.1.weight", "likelihood.log_noise",
        and "layers.1.weight_scale" for the scale of a hierarchical prior. The shape is ``[draw, ...]``, or ``[draw,
        member, ...]`` for parameters with a value per member. For several networks (a deep ensemble, or the chains of
        NUTS), every entry has the member axis, in the order of the predictions; values that members of one network
        share are repeated. For NUTS, the first chains of all members come first, then their second chains, and so on.

    Raises:
        InputError: if `num_samples` is below 1, the state is not one of the algorithm, the algorithm or the state has
            no draws of parameters, or `names` matches nothing.

    >>> from bayes_share.inference import IVON, fit_tensors
    >>> from bayes_share.models.likelihoods import Gaussian
    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> algorithm, model = IVON(), Model(torch.nn.Linear(1, 1), Gaussian(0.1))
    >>> state = fit_tensors(algorithm, model, x, 2 * x, 100)
    >>> {name: list(values.shape) for name, values in posterior_samples(algorithm, state, 8).items()}
    {'weight': [8, 1, 1], 'bias': [8, 1]}
    """
    if num_samples < 1:
        raise InputError(f"the number of draws must be at least 1, not {num_samples}")
    check_state(algorithm, state)
    is_asked = _chooser(names)
    draws: list[dict[str, Tensor]] = []
    for sample in range(num_samples):
        parts = algorithm.draw(state, sample).parts
        draws.append(drawn_values(parts, is_asked))
        if not draws[-1] and (drawn := {name: None for part in parts for name in by_users_name(part)}):
            raise InputError(f"names={names!r} matches no parameter: choose from {', '.join(drawn)}")
        if not draws[-1]:
            reason = algorithm.not_drawn() or "it has draws only after training"
            raise InputError(f"this state of {type(algorithm).__name__} has no draws of parameters: {reason}")
    # Older chains have samples without the scales of hierarchical priors.
    in_all_draws = [name for name in draws[0] if all(name in draw for draw in draws)]
    return {name: torch.stack([draw[name] for draw in draws]) for name in in_all_draws}


def drawn_values(
    parts: Sequence[Part], is_asked: Callable[[str], bool] = lambda name: True
) -> dict[str, Shaped[Tensor, "..."]]:
    """Return the drawn values of several networks on the CPU, for the requested names."""
    found: dict[str, list[Tensor]] = {}
    for part in parts:
        size = part.model.ensemble_size
        for name, (value, is_own) in by_users_name(part).items():
            if is_asked(name):
                if len(parts) > 1:  # also for a layer with one row for all members
                    value = value.expand(size, *value.shape[1:]) if is_own else value.expand(size, *value.shape)
                found.setdefault(name, []).append(value.detach().cpu())
    return {name: torch.cat(values) if len(parts) > 1 else values[0] for name, values in found.items()}


def users_name(model: Model, parameter: str) -> str:
    """Return a model parameter's name in the user's network. Names of the likelihood start with "likelihood."."""
    return parameter.removeprefix(f"network.{prefix_of(model.network)}")


def by_users_name(part: Part) -> dict[str, tuple[Tensor, bool]]:
    """Return the drawn values of a part by names in the user's network, and whether each has a row per member."""
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
