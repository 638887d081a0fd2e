"""What each parameter of a network is: shared by all members, a member's own, or a rank-1 factor."""

from typing import Literal

from torch import nn

from bayes_share.layers.factored import Factored

ParameterKind = Literal["base", "member", "factor"]


def parameter_kinds(network: nn.Module) -> dict[str, ParameterKind]:
    """The kind of each parameter, by its name in ``network.named_parameters()``.

    ``"factor"``: r or s of a rank-1 layer; ``"member"``: anything else with a row for each member (biases, norms, and
    how much of each template a layer takes), be it a single one, as in layers that share within one network;
    ``"base"``: what has no such axis, and so is shared by all members.
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


def members_equal(network: nn.Module) -> bool:
    """Whether all members of a network have the same parameters, so that they compute the same."""
    parameters = dict(network.named_parameters())
    kinds = parameter_kinds(network)
    return all(bool((parameters[name] == parameters[name][:1]).all()) for name, kind in kinds.items() if kind != "base")


def _member_names(module: nn.Module) -> tuple[str, ...]:
    if getattr(module, "ensemble_size", None) is None:
        return ()
    return getattr(module, "member_parameters", ())
