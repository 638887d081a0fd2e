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
from bayes_share.layers.norm import MemberLayerNorm
from bayes_share.sharing.kinds import ParameterKind, parameter_kinds

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution

Role = Literal["weight", "bias", "norm", "factor", "likelihood"]


@dataclass(frozen=True, eq=False)
class Site:
    """A parameter that is learned, as a rule for priors sees it.

    Args:
        name: in the user's network, as in ``layers.1.weight``.
        kind: shared by all members ("base"), a member's own ("member"), or a rank-1 factor ("factor").
        role: "weight", "bias", "norm" (the scale of a norm), "factor", or "likelihood" (what a likelihood learns).
        fan_in: how many inputs each output of its layer sums over; 1 where it is no sum.
        signs: +1 or -1, as its numbers were when the model was made, for rank-1 factors; 1 for anything else. Of its
            shape, ``[...]``, or ``[member, ...]`` where it is a member's own, and with its dtype and device.
    """

    name: str
    kind: ParameterKind
    role: Role
    fan_in: int
    signs: Tensor

    @property
    def members(self) -> int:
        """How many members have a part of it each; 1 where they share it."""
        return 1 if self.kind == "base" else len(self.signs)


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
PriorName = Literal["normal", "laplace", "cauchy", "log-normal"]

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


def around(
    centre: Literal["one", "sign"], scale: float, family: Callable[..., "Distribution"] | None = None
) -> PriorOfSite:
    """A family around 1, or around the sign (+1 or -1) that each number starts with: for rank-1 factors.

    Args:
        centre: "one" or "sign".
        scale: of the family.
        family: of a location and a scale; normal unless given.
    """

    def prior(site: Site) -> "Distribution":
        from pyro import distributions

        loc = site.signs if centre == "sign" else torch.ones_like(site.signs)
        return (family or distributions.Normal)(loc, torch.tensor(scale).to(loc))

    return prior


def default_prior(site: Site) -> "Distribution | None":
    """Weights around 0 with scale 4 / √fan_in, biases N(0, 1), norm scales N(1, 1), factors N(±1, 0.1²).

    What a likelihood learns has none.
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
    }[site.role]
    return chosen(site)


def standard_rules(
    network: nn.Module, latent: Latents, weights: PriorName, scale: float, factors: PriorName, factor_scale: float
) -> dict[Selector, Prior]:
    """Rules from a few names, as the command line gives them.

    Args:
        network: what they are for.
        latent: what has a prior at all: "all"; "factors": r and s alone; "base": what the members share; "last-layer":
            the weights and biases of the layer that was defined last; "auto": "factors" where there are any, else
            "last-layer".
        weights: family of the weights, around 0 and scaled by fan-in.
        scale: of that family, for a fan-in of 1.
        factors: family of the factors, around their signs; "log-normal" around 1.
        factor_scale: of that family.

    Raises:
        InputError: an unknown name, a scale that is not positive, or latent factors in a network that has none.
    """
    from pyro import distributions

    for what, option, known in (
        ("latents", latent, Latents),
        ("prior", weights, PriorName),
        ("prior", factors, PriorName),
    ):
        if option not in get_args(known):
            raise unknown(what, option, get_args(known))
    for number in (scale, factor_scale):
        if not 0 < number < math.inf:
            raise InputError(f"the scale of a prior must be positive, and is {number}")
    if weights == "log-normal":
        raise InputError("prior 'log-normal' is for factors: weights are of both signs")
    families = {"normal": distributions.Normal, "laplace": distributions.Laplace, "cauchy": distributions.Cauchy}
    rules: dict[Selector, Prior] = {"weight": scaled_by_fan_in(families[weights], scale)}
    sites = [site for _, site in sites_of(network, {})]
    if has_factors := any(site.kind == "factor" for site in sites):
        is_log = factors == "log-normal"
        around_zero = distributions.LogNormal(torch.tensor(0.0), torch.tensor(factor_scale))
        rules["factor"] = around_zero if is_log else around("sign", factor_scale, families[factors])
    if latent == "auto":
        latent = "factors" if has_factors else "last-layer"
    if latent == "factors":
        if not has_factors:
            raise InputError("latent 'factors' is for ensembles: this network has no rank-1 factors")
        return rules | {lambda site: site.kind != "factor": None}
    if latent == "base":
        return rules | {lambda site: site.kind != "base": None}
    if latent == "last-layer":
        last = [site.name for site in sites if site.role == "weight"][-1].rpartition(".")[0].removeprefix("network.")
        return rules | {lambda site: site.name.rpartition(".")[0].removeprefix("network.") != last: None}
    return rules


def priors_of(sites: Sequence[Site], rules: Rules) -> dict[str, "Distribution | Hierarchical"]:
    """The prior of each site that has one, by its name.

    Args:
        sites: all that is learned.
        rules: the last one that chooses a site holds; sites that none chooses have their `default_prior`.

    Raises:
        InputError: a rule that chooses nothing, or a prior that does not broadcast to its parameter.
    """
    chosen: dict[str, Prior] = {site.name: default_prior for site in sites}
    for selector, prior in rules.items():
        names = [site.name for site in sites if _chooses(selector, site)]
        if not names:
            there = ", ".join(site.name for site in sites[:8]) + (", ..." if len(sites) > 8 else "")
            raise InputError(f"the prior for {selector!r} is for nothing: the parameters that are learned are {there}")
        chosen |= dict.fromkeys(names, prior)
    found: dict[str, Distribution | Hierarchical] = {}
    for site in sites:
        prior = chosen[site.name]
        given = prior(site) if callable(prior) and not isinstance(prior, TorchDistribution) else prior
        if isinstance(given, Hierarchical):
            found[site.name] = given
        elif given is not None:
            found[site.name] = deepcopy(expanded(given, site))  # no prior shares memory with anything that is trained
    return found


def sites_of(
    network: nn.Module, signs: Mapping[str, Tensor], prefix: str = "", role: Role | None = None
) -> Iterator[tuple[str, Site]]:
    """Every parameter that is learned: its name in the module, and the site.

    Args:
        network: frozen parameters are known, and no sites.
        signs: of the rank-1 factors, by their name in the module.
        prefix: left out of the sites' names.
        role: of all; None: by what each is.
    """
    kinds = parameter_kinds(network)
    seen: set[nn.Parameter] = set()
    for module_name, module in network.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            name = f"{module_name}.{own}" if module_name else own
            kind = kinds[name]
            yield (
                name,
                Site(
                    name.removeprefix(prefix),
                    kind,
                    role or _role(module, own, kind),
                    _fan_in(module, own),
                    signs[name].to(parameter) if name in signs else parameter.new_ones(()).expand(parameter.shape),
                ),
            )


def expanded(prior: "Distribution", site: Site) -> "Distribution":
    """A prior as one distribution over the whole of a site.

    Raises:
        InputError: one that does not broadcast to it.
    """
    shape = site.signs.shape
    try:
        return moved(prior, site.signs).expand(shape).to_event(len(shape))
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
    return fnmatchcase(site.name, selector)


def _role(module: nn.Module, own: str, kind: ParameterKind) -> Role:
    if kind == "factor":
        return "factor"
    if own.endswith("bias") or own == "threshold":
        return "bias"
    if isinstance(module, nn.LayerNorm | MemberLayerNorm):
        return "norm"
    axes = getattr(module, own).ndim - (kind == "member")  # one number for each channel is the scale of a norm
    return "norm" if axes <= 1 else "weight"


def _fan_in(module: nn.Module, own: str) -> int:
    weight = getattr(module, own)
    if weight.ndim < 2 or isinstance(module, nn.Embedding):
        return 1
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return max(1, weight[:, 0].numel() // module.groups)
    return weight[0].numel()
