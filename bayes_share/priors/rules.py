"""Which parameter has which prior: rules by kind, role, name or predicate, of which the last that matches holds."""

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
"""A kind, a role, a name or pattern of names, or a predicate."""

Rules = Mapping[Selector, Prior]
"""Priors by selector; of those that choose a parameter, the last one holds."""


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
            raise InputError(f"the prior for {which} matches no parameter: the trained parameters are {there}")
        chosen |= dict.fromkeys(names, prior)
    return chosen


def _at_sites(sites: Sequence[Site], chosen: Mapping[str, Prior]) -> dict[str, "Distribution | Hierarchical | None"]:
    found: dict[str, Distribution | Hierarchical | None] = {}
    for site in sites:
        if site.name not in chosen:
            continue
        given = chosen[site.name]
        if isinstance(given, type):
            raise InputError(f"the prior of {site.name} is the class {given.__name__}: give an instance of it")
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


def _chooses(selector: Selector, site: Site) -> bool:
    if callable(selector):
        return selector(site)
    if selector in (*get_args(ParameterKind), *get_args(Role)):
        return selector in (site.kind, site.role)
    return any(fnmatchcase(name, selector) for name in site.names)
