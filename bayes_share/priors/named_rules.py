"""Rules for the priors of a network, from the names that the command line has for them."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.priors.families import Centre, Prior, around, scaled_by_fan_in
from bayes_share.priors.rules import Selector
from bayes_share.priors.sites import Role, Site, prefix_of, sites_of

Latents = Literal["auto", "all", "factors", "base", "last-layer"]
WeightPriorName = Literal["normal", "laplace", "cauchy"]
FactorPriorName = Literal["normal", "laplace", "cauchy", "log-normal"]


def standard_rules(
    network: nn.Module,
    latent: Latents,
    weights: WeightPriorName,
    scale: float,
    factors: FactorPriorName,
    factor_scale: float,
    centre: Centre,
) -> dict[Selector, Prior]:
    """Rules from a few names, as the command line gives them.

    Args:
        network: what they are for.
        latent: what has a prior at all: "all"; "factors": r and s alone; "base": what the members share, which in a
            network without members is all; "last-layer": all of the layer whose weight was defined last; "auto":
            "factors" where there are any, else "last-layer".
        weights: family of the weights, around 0 and scaled by fan-in, and of biases and norms, as in `default_prior`.
        scale: of the weights' priors, for a fan-in of 1.
        factors: family of the factors; "log-normal" is around 1.
        factor_scale: of that family.
        centre: of the other families of the factors: "one", or the "sign" that each factor starts with.

    Raises:
        InputError: an unknown name, a scale that is not positive, or latent factors or a last layer in a network that
            has none.
    """
    from pyro import distributions

    for what, option, known in (
        ("latents", latent, Latents),
        ("prior of weights", weights, WeightPriorName),
        ("prior of factors", factors, FactorPriorName),
        ("centre of priors", centre, Centre),
    ):
        if option not in get_args(known):
            raise unknown(what, option, get_args(known))
    for number in (scale, factor_scale):
        if not 0 < number < math.inf:
            raise InputError(f"the scale of a prior must be positive, and is {number}")
    rules: dict[Selector, Prior] = {}
    families = {"normal": distributions.Normal, "laplace": distributions.Laplace, "cauchy": distributions.Cauchy}
    sites = [site for _, site in sites_of(network, {}, prefix_of(network))]
    layers = [_layer(site) for site in sites if site.role == "weight"]
    has_factors = any(site.kind == "factor" for site in sites)
    family, roles = families[weights], {site.role for site in sites}
    of_roles: dict[Role, Prior] = {
        "weight": scaled_by_fan_in(family, scale),
        "bias": family(torch.tensor(0.0), torch.tensor(1.0)),
        "norm": around("one", 1.0, family),
        "mix": scaled_by_fan_in(family, 1.0),
    }
    rules |= {role: prior for role, prior in of_roles.items() if role in roles}
    if has_factors:
        is_log = factors == "log-normal"
        if is_log and any(site.role == "term" for site in sites):
            raise InputError(
                "factor_prior log-normal requires positive factors, and those of further terms start around 0"
            )
        around_one = distributions.LogNormal(torch.tensor(0.0), torch.tensor(factor_scale))
        rules["factor"] = around_one if is_log else around(centre, factor_scale, families[factors])
    if latent == "auto":
        latent = "factors" if has_factors else "last-layer"
    if latent == "factors" and not has_factors:
        raise InputError("latent 'factors' requires rank-1 factors, and this network has none")
    if latent == "last-layer" and not layers:
        raise InputError("latent 'last-layer' requires a layer with a trained weight")
    is_latent: dict[str, Callable[[Site], bool]] = {
        "all": lambda site: True,
        "factors": lambda site: site.kind == "factor",
        "base": lambda site: site.kind == "base",
        "last-layer": lambda site: _layer(site) == layers[-1],
    }
    points = [site.name for site in sites if not is_latent[latent](site)]
    # By predicate, as names may hold what is special in a pattern; and none that chooses nothing.
    return rules | ({lambda site: site.name in points: None} if points else {})


def _layer(site: Site) -> str:
    return site.name.rpartition(".")[0]
