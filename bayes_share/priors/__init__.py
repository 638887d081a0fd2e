"""Priors over the parameters of a network, as Pyro distributions."""

from bayes_share.priors.families import (
    WEIGHT_SCALE,
    Centre,
    Hierarchical,
    Prior,
    PriorOfSite,
    around,
    default_prior,
    scaled_by_fan_in,
)
from bayes_share.priors.named_rules import FactorPriorName, Latents, WeightPriorName, standard_rules
from bayes_share.priors.rules import Rules, Selector, expanded, moved, priors_by_rule, priors_of
from bayes_share.priors.sites import Role, Site, sites_of

__all__ = [
    "WEIGHT_SCALE",
    "Centre",
    "FactorPriorName",
    "Hierarchical",
    "Latents",
    "Prior",
    "PriorOfSite",
    "Role",
    "Rules",
    "Selector",
    "Site",
    "WeightPriorName",
    "around",
    "default_prior",
    "expanded",
    "moved",
    "priors_by_rule",
    "priors_of",
    "scaled_by_fan_in",
    "sites_of",
    "standard_rules",
]
