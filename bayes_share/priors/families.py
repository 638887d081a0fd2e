"""Priors of one parameter: families of Pyro distributions with a centre and a scale, and the default prior."""

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
    """A prior with a scale of its own prior, shared by all the parameters that its rule chooses.

    Args:
        hyperprior: of the scale, a distribution over positive numbers.
        given: the prior of a parameter, from the scale and the site.
    """

    hyperprior: "Distribution"
    given: Callable[[Tensor, Site], "Distribution"]


PriorOfSite: TypeAlias = "Callable[[Site], Distribution]"

Prior: TypeAlias = "Distribution | Callable[[Site], Distribution | None] | Hierarchical | None"
"""A distribution that broadcasts to the parameter; a function that gives one for a site; None: a point, no prior."""

Centre = Literal["one", "sign"]

WEIGHT_SCALE = 4.0
"""Of the default prior of weights, for a fan-in of 1."""


def scaled_by_fan_in(family: Callable[..., "Distribution"], scale: float = WEIGHT_SCALE) -> PriorOfSite:
    """A family around 0 with the scale ``scale / √fan_in``, so that activations have one size at every width.

    Args:
        family: of a location and a scale, such as `pyro.distributions.Normal`.
        scale: for a fan-in of 1. √2 keeps the size of activations through ReLUs (He et al. 2015, arXiv 1502.01852); as
            a prior it was too narrow for a perceptron on digits, where 4 predicted better (on validation images).
    """
    return lambda site: family(torch.tensor(0.0), torch.tensor(scale / math.sqrt(site.fan_in)))


def around(centre: Centre, scale: float, family: Callable[..., "Distribution"] | None = None) -> PriorOfSite:
    """A family around 1, or around the sign (+1 or -1) that each number starts with: for factors.

    Those of further terms, which start small, have it around 0.

    Args:
        centre: "one" or "sign".
        scale: of the family.
        family: of a location and a scale; normal unless given.
    """

    def prior(site: Site) -> "Distribution":
        from pyro import distributions

        loc = site.centre if centre == "sign" else site.centre.abs()
        return (family or distributions.Normal)(loc, torch.tensor(scale).to(loc))

    return prior


def default_prior(site: Site) -> "Distribution | None":
    """Weights around 0 with scale 4 / √fan_in, biases N(0, 1), norm scales N(1, 1), factors N(±1, 0.1²).

    Factors of further terms N(0, 0.1²).

    Mixtures of k templates N(0, 1 / k), so that a mixture has the variance of a template. What a likelihood learns has
    none.
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
