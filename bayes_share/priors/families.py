"""Priors of a parameter: families of Pyro distributions with a centre and a scale, and the default prior."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch
from torch import Tensor

from bayes_share.priors.sites import Site

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution


@dataclass(frozen=True)
class Hierarchical:
    """A prior whose scale has a prior itself and is shared by all parameters that its rule selects.

    Args:
        hyperprior: the prior of the scale, a distribution over positive numbers.
        given: returns the prior of a parameter for a scale and a site.
    """

    hyperprior: "Distribution"
    given: Callable[[Tensor, Site], "Distribution"]


PriorOfSite: TypeAlias = "Callable[[Site], Distribution]"

Prior: TypeAlias = "Distribution | Callable[[Site], Distribution | None] | Hierarchical | None"
"""A distribution that broadcasts to the parameter, a function of a site that returns one, or None for no prior."""

Centre = Literal["one", "sign"]

WEIGHT_SCALE = 4.0
"""The scale of the default prior of weights, for a fan-in of 1."""


def scaled_by_fan_in(family: Callable[..., "Distribution"], scale: float = WEIGHT_SCALE) -> PriorOfSite:
    """A prior centred at 0 with scale ``scale / √fan_in``, so that activations have the same scale at every width.

    Args:
        family: a distribution with a location and a scale, such as `pyro.distributions.Normal`.
        scale: the scale for a fan-in of 1. √2 preserves the scale of activations through ReLUs (He et al. 2015, arXiv
            1502.01852). As a prior, √2 was too narrow for an MLP on digits, where 4 gave better predictions on the
            validation split.
    """
    return lambda site: family(torch.tensor(0.0), torch.tensor(scale / math.sqrt(site.fan_in)))


def around(centre: Centre, scale: float, family: Callable[..., "Distribution"] | None = None) -> PriorOfSite:
    """A prior for factors, centred at 1 or at the sign (+1 or -1) of each initial value.

    For the factors of further terms, which are initialised near 0, it is centred at 0.

    Args:
        centre: "one" or "sign".
        scale: the scale of the family.
        family: a distribution with a location and a scale. Default: `pyro.distributions.Normal`.
    """

    def prior(site: Site) -> "Distribution":
        from pyro import distributions

        loc = site.centre if centre == "sign" else site.centre.abs()
        return (family or distributions.Normal)(loc, torch.tensor(scale).to(loc))

    return prior


def default_prior(site: Site) -> "Distribution | None":
    """Return the default prior of a site, or None for parameters of a likelihood.

    Weights have N(0, 16 / fan_in), biases N(0, 1), norm scales N(1, 1), factors N(±1, 0.1²) and factors of further
    terms N(0, 0.1²). The coefficients of k templates have N(0, 1 / k), so that a mixture has the variance of one
    template.
    """
    from pyro import distributions

    if site.role == "likelihood":
        return None
    if site.role == "bias":
        return distributions.Normal(torch.tensor(0.0), torch.tensor(1.0))
    chosen = {
        "weight": scaled_by_fan_in(distributions.Normal),
        "norm": around("one", 1.0),
        "factor": around("sign", 0.1),
        "term": around("sign", 0.1),
        "mix": scaled_by_fan_in(distributions.Normal, 1.0),
    }[site.role]
    return chosen(site)
