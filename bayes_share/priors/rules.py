"""Assignment of priors to parameters by rules: the last rule that matches a parameter by its selector applies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, get_args

from torch import Tensor
from torch.distributions import Distribution as TorchDistribution
from torch.distributions import Transform

from bayes_share.errors import InputError
from bayes_share.priors.families import Hierarchical, Prior, default_prior
from bayes_share.priors.sites import Role, Site
from bayes_share.sharing.kinds import ParameterKind

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution

Selector = str | Callable[[Site], bool]
"""A kind, a role, a parameter name or pattern, or a predicate."""

Rules = Mapping[Selector, Prior]
"""Priors by selector; if several match a parameter, the last one applies."""


def priors_of(sites: Sequence[Site], rules: Rules) -> dict[str, "Distribution | Hierarchical"]:
    """Return the prior of each site that has one, by site name.

    Args:
        sites: all trained parameters.
        rules: the rules; the last matching rule applies, and sites that no rule matches have their `default_prior`.

    Raises:
        InputError: if a rule matches no site, or a prior does not broadcast to its parameter.
    """
    given: dict[str, Prior] = {site.name: default_prior for site in sites}
    return {
        name: prior for name, prior in _at_sites(sites, given | _chosen_by(sites, rules)).items() if prior is not None
    }


def priors_by_rule(sites: Sequence[Site], rules: Rules) -> dict[str, "Distribution | Hierarchical | None"]:
    """Return the prior of each site that a rule matches, by site name; None if the rule gives no prior.

    Args:
        sites: all trained parameters.
        rules: the rules; the last matching rule applies.

    Raises:
        InputError: if a rule matches no site, or a prior does not broadcast to its parameter.
    """
    return _at_sites(sites, _chosen_by(sites, rules))


def _chosen_by(sites: Sequence[Site], rules: Rules) -> dict[str, Prior]:
    """Return the prior of the last matching rule for each site that a rule matches, by site name.

    Raises:
        InputError: if a rule matches no site.
    """
    chosen: dict[str, Prior] = {}
    for selector, prior in rules.items():
        names = [site.name for site in sites if _matches(selector, site)]
        if not names:
            trained = ", ".join(site.name for site in sites[:8]) + (", ..." if len(sites) > 8 else "")
            which = "a predicate" if callable(selector) else repr(selector)
            raise InputError(f"the prior for {which} matches no parameter: the trained parameters are {trained}")
        chosen |= dict.fromkeys(names, prior)
    return chosen


def _at_sites(sites: Sequence[Site], chosen: Mapping[str, Prior]) -> dict[str, "Distribution | Hierarchical | None"]:
    """Evaluate and expand the chosen priors at their sites, by site name."""
    priors: dict[str, Distribution | Hierarchical | None] = {}
    for site in sites:
        if site.name not in chosen:
            continue
        given = chosen[site.name]
        if isinstance(given, type):
            raise InputError(f"the prior of {site.name} is the class {given.__name__}: give an instance of it")
        if callable(given) and not isinstance(given, TorchDistribution):
            given = given(site)
        if given is None or isinstance(given, Hierarchical):
            priors[site.name] = given
        else:
            priors[site.name] = deepcopy(expanded(given, site))  # must not share memory with trained parameters
    return priors


def expanded(prior: "Distribution", site: Site) -> "Distribution":
    """Expand a prior to one distribution over the whole parameter of a site.

    Raises:
        InputError: if the prior is not a Pyro distribution, is a `Delta`, is multivariate, or does not broadcast to the
            parameter.
    """
    from pyro.distributions import Delta

    shape = site.centre.shape
    if not hasattr(prior, "to_event"):
        raise InputError(f"the prior of {site.name} must be a distribution of pyro.distributions, not {prior!r}")
    if isinstance(prior, Delta):
        raise InputError(f"the prior of {site.name} is a point mass (Delta): freeze the parameter instead")
    if prior.event_shape:
        raise InputError(
            f"the prior of {site.name} has event shape {list(prior.event_shape)}: give a univariate prior, which "
            "is broadcast to the parameter"
        )
    try:
        return moved(prior, site.centre).expand(shape).to_event(len(shape))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the prior of {site.name} has shape {list(prior.batch_shape)}, which does not broadcast to {list(shape)}"
        ) from error


def moved(distribution: "Distribution", like: Tensor) -> "Distribution":
    """Copy a distribution to the device and floating-point dtype of a tensor."""
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


def _matches(selector: Selector, site: Site) -> bool:
    if callable(selector):
        return selector(site)
    if selector in (*get_args(ParameterKind), *get_args(Role)):
        return selector in (site.kind, site.role)
    return any(fnmatchcase(name, selector) for name in site.names)
