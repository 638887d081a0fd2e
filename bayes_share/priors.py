"""Priors over the parameters of any network: distributions of Pyro, chosen by kind, role, name or predicate."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Transform

from bayes_share.errors import InputError, unknown
from bayes_share.sharing.kinds import ParameterKind
from bayes_share.sites import Role, Site, prefix_of, sites_of

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

Selector = str | Callable[[Site], bool]
"""A kind, a role, a name or pattern of names, or a predicate."""

Latents = Literal["auto", "all", "factors", "base", "last-layer"]
Centre = Literal["one", "sign"]
WeightPriorName = Literal["normal", "laplace", "cauchy"]
FactorPriorName = Literal["normal", "laplace", "cauchy", "log-normal"]

WEIGHT_SCALE = 4.0
"""Of the default prior of weights, for a fan-in of 1."""

Rules = Mapping[Selector, Prior]
"""Priors by selector; of those that choose a parameter, the last one holds."""


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
            raise InputError("factor_prior log-normal is of positive factors: those of further terms start around 0")
        around_one = distributions.LogNormal(torch.tensor(0.0), torch.tensor(factor_scale))
        rules["factor"] = around_one if is_log else around(centre, factor_scale, families[factors])
    if latent == "auto":
        latent = "factors" if has_factors else "last-layer"
    if latent == "factors" and not has_factors:
        raise InputError("latent 'factors' is for shared weights: this network has no rank-1 factors")
    if latent == "last-layer" and not layers:
        raise InputError("latent 'last-layer' is for networks in which the weight of a layer is learned")
    is_latent: dict[str, Callable[[Site], bool]] = {
        "all": lambda site: True,
        "factors": lambda site: site.kind == "factor",
        "base": lambda site: site.kind == "base",
        "last-layer": lambda site: _layer(site) == layers[-1],
    }
    points = [site.name for site in sites if not is_latent[latent](site)]
    # By predicate, as names may hold what is special in a pattern; and none that chooses nothing.
    return rules | ({lambda site: site.name in points: None} if points else {})


def priors_of(sites: Sequence[Site], rules: Rules) -> dict[str, "Distribution | Hierarchical"]:
    """The prior of each site that has one, by its name.

    Args:
        sites: all that is learned.
        rules: the last one that chooses a site holds; sites that none chooses have their `default_prior`.

    Raises:
        InputError: a rule that chooses nothing, or a prior that does not broadcast to its parameter.
    """
    given: dict[str, Prior] = {site.name: default_prior for site in sites}
    return {
        name: prior for name, prior in _at_sites(sites, given | _chosen_by(sites, rules)).items() if prior is not None
    }


def priors_by_rule(sites: Sequence[Site], rules: Rules) -> dict[str, "Distribution | Hierarchical | None"]:
    """The prior of each site that a rule chooses, by its name; None where the rule says that there is none.

    Args:
        sites: all that is learned.
        rules: the last one that chooses a site holds.

    Raises:
        InputError: a rule that chooses nothing, or a prior that does not broadcast to its parameter.
    """
    return _at_sites(sites, _chosen_by(sites, rules))


def _chosen_by(sites: Sequence[Site], rules: Rules) -> dict[str, Prior]:
    """What the last rule that chooses a site gives it, by the site's name; other sites are left out.

    Raises:
        InputError: a rule that chooses nothing.
    """
    chosen: dict[str, Prior] = {}
    for selector, prior in rules.items():
        names = [site.name for site in sites if _chooses(selector, site)]
        if not names:
            there = ", ".join(site.name for site in sites[:8]) + (", ..." if len(sites) > 8 else "")
            which = "a predicate" if callable(selector) else repr(selector)
            raise InputError(f"the prior for {which} is for nothing: the parameters that are learned are {there}")
        chosen |= dict.fromkeys(names, prior)
    return chosen


def _at_sites(sites: Sequence[Site], chosen: Mapping[str, Prior]) -> dict[str, "Distribution | Hierarchical | None"]:
    found: dict[str, Distribution | Hierarchical | None] = {}
    for site in sites:
        if site.name not in chosen:
            continue
        given = chosen[site.name]
        if isinstance(given, type):
            raise InputError(f"the prior of {site.name} is the class {given.__name__}: make a distribution of it")
        if callable(given) and not isinstance(given, TorchDistribution):
            given = given(site)
        if given is None or isinstance(given, Hierarchical):
            found[site.name] = given
        else:
            found[site.name] = deepcopy(expanded(given, site))  # no prior shares memory with anything that is trained
    return found


def expanded(prior: "Distribution", site: Site) -> "Distribution":
    """A prior as one distribution over the whole of a site.

    Raises:
        InputError: one that is not of Pyro, is over more than a number, or does not broadcast to the site.
    """
    from pyro.distributions import Delta

    shape = site.centre.shape
    if not hasattr(prior, "to_event"):
        raise InputError(f"the prior of {site.name} must be a distribution of pyro.distributions, not {prior!r}")
    if isinstance(prior, Delta):
        raise InputError(f"the prior of {site.name} is a point, under which nothing is learned: freeze the parameter")
    if prior.event_shape:
        raise InputError(
            f"the prior of {site.name} is over events of shape {list(prior.event_shape)}: give one of single numbers, "
            f"which broadcasts to the parameter"
        )
    try:
        return moved(prior, site.centre).expand(shape).to_event(len(shape))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the prior of {site.name} has shape {list(prior.batch_shape)}, which does not broadcast to {list(shape)}"
        ) from error


def moved(distribution: "Distribution", like: Tensor) -> "Distribution":
    """A copy of a distribution with its numbers on the device, and in the floating dtype, of a tensor."""
    memo: dict[int, Any] = {}
    for tensor in _tensors(distribution):
        memo[id(tensor)] = tensor.detach().to(like if tensor.is_floating_point() else like.device)
    return deepcopy(distribution, memo)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, TorchDistribution | Transform):
        yield from _tensors(vars(value))
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _layer(site: Site) -> str:
    return site.name.rpartition(".")[0]


def _chooses(selector: Selector, site: Site) -> bool:
    if callable(selector):
        return selector(site)
    if selector in (*get_args(ParameterKind), *get_args(Role)):
        return selector in (site.kind, site.role)
    return any(fnmatchcase(name, selector) for name in site.names)
