"""Prior rules for a network from the option names of the command line."""

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
    """Return prior rules for a network from option names, as given on the command line.

    Args:
        network: the network.
        latent: the parameters with a prior. "all": all parameters. "factors": only the factors. "base": the parameters
            that members share, which are all parameters of a single network. "last-layer": all parameters of the layer
            whose weight is defined last. "auto": "factors" if the network has factors, otherwise "last-layer".
        weights: the family of the priors of weights, biases and norms, centred and scaled as in `default_prior`.
        scale: the scale of the weights' priors, for a fan-in of 1.
        factors: the family of the factors' priors; "log-normal" has the median 1.
        factor_scale: the scale of the factors' priors.
        centre: the centre of the factors' priors, except for "log-normal": "one", or the "sign" of each initial value.

    Raises:
        InputError: if a name is unknown, a scale is not positive, or the network has no factors or no layer with a
            trained weight although `latent` requires them.
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
    for value in (scale, factor_scale):
        if not 0 < value < math.inf:
            raise InputError(f"the scale of a prior must be positive and finite, and is {value}")
    rules: dict[Selector, Prior] = {}
    families = {"normal": distributions.Normal, "laplace": distributions.Laplace, "cauchy": distributions.Cauchy}
    sites = [site for _, site in sites_of(network, {}, prefix_of(network))]
    layers = [_layer(site) for site in sites if site.role == "weight"]
    has_factors = any(site.kind == "factor" for site in sites)
    family, roles = families[weights], {site.role for site in sites}
    priors_by_role: dict[Role, Prior] = {
        "weight": scaled_by_fan_in(family, scale),
        "bias": family(torch.tensor(0.0), torch.tensor(1.0)),
        "norm": around("one", 1.0, family),
        "mix": scaled_by_fan_in(family, 1.0),
    }
    rules |= {role: prior for role, prior in priors_by_role.items() if role in roles}
    if has_factors:
        is_log = factors == "log-normal"
        if is_log and any(site.role == "term" for site in sites):
            raise InputError(
                "factor_prior log-normal requires positive factors, and factors of further terms are initialised near 0"
            )
        log_normal = distributions.LogNormal(torch.tensor(0.0), torch.tensor(factor_scale))
        rules["factor"] = log_normal if is_log else around(centre, factor_scale, families[factors])
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
    # A predicate, because names may contain characters that are special in patterns. A rule must match a parameter.
    return rules | ({lambda site: site.name in points: None} if points else {})


def _layer(site: Site) -> str:
    return site.name.rpartition(".")[0]
