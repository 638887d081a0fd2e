"""The kind of each parameter: shared by all members, owned by each member, or a rank-1 factor."""

from typing import Literal

from torch import nn

from bayes_share.layers.factored import FIXED, Factored, is_further

ParameterKind = Literal["base", "member", "factor"]


def parameter_kinds(network: nn.Module) -> dict[str, ParameterKind]:
    """Return the kind of each parameter, by its name in ``network.named_parameters()``.

    ``"factor"``: r or s of a rank-1 layer, including further terms. ``"member"``: any other parameter with a member
    axis, even of length 1: biases, norms, weights that members own, and mixtures of templates. ``"base"``: parameters
    without a member axis, which all members share.
    """
    kinds: dict[str, ParameterKind] = {name: "base" for name, _ in network.named_parameters()}
    for prefix, module in network.named_modules():
        own = _member_names(module)
        for name, _ in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if full not in kinds:
                continue  # tied to a parameter that was named before
            if isinstance(module, Factored) and name in module.factor_parameters:
                kinds[full] = "factor"
            elif name in own:
                kinds[full] = "member"
    return kinds


def further_terms(network: nn.Module) -> set[str]:
    """Return the names of factors beyond the first term. They start near 0, not at 1 or -1."""
    kinds = parameter_kinds(network)
    return {name for name, kind in kinds.items() if kind == "factor" and is_further(name.rpartition(".")[2])}


def members_equal(network: nn.Module) -> bool:
    """Whether all members have equal parameters and fixed factors, so that they compute and learn the same.

    Members whose outputs are equal only because a factor multiplies a zero are not equal: their gradients differ.
    """
    parameters = dict(network.named_parameters())
    owned = [parameters[name] for name, kind in parameter_kinds(network).items() if kind != "base"]
    fixed = [buffer for name, buffer in network.named_buffers() if name.endswith(FIXED)]  # which seeds may share
    return all(bool((rows == rows[:1]).all()) for rows in (*owned, *fixed))


def _member_names(module: nn.Module) -> tuple[str, ...]:
    if getattr(module, "ensemble_size", None) is None:
        return ()
    return getattr(module, "member_parameters", ())
