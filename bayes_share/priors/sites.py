"""Sites: descriptions of a network's trained parameters, which prior rules match."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from bayes_share.layers.factored import Factored, is_further
from bayes_share.layers.norm import MemberLayerNorm
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.sharing.kinds import ParameterKind, parameter_kinds
from bayes_share.sharing.members_interface import Members

Role = Literal["weight", "bias", "norm", "factor", "term", "mix", "likelihood"]


@dataclass(frozen=True, eq=False)
class Site:
    """A trained parameter, as matched by prior rules.

    Args:
        name: the parameter's name in the user's network, such as ``layers.1.weight``.
        kind: "base" (shared by all members), "member" (separate for each member) or "factor" (a rank-1 factor).
        role: "weight", "bias", "norm" (the scale of a norm), "factor" (r or s), "term" (a factor of a further term),
            "mix" (the coefficients of templates), or "likelihood" (a parameter of a likelihood).
        fan_in: for weights, the number of inputs that each output of the layer sums over; for template coefficients,
            the number of templates; otherwise 1.
        centre: the centre of the prior. For factors, the signs (+1 or -1) of their values when the model was created,
            and 0 for factors of further terms; 1 for all other parameters. It has the parameter's shape, with a first
            axis ``member`` unless the kind is "base", and its dtype and device.
        names: all names of the parameter in the user's network; a tied parameter has several.
    """

    name: str
    kind: ParameterKind
    role: Role
    fan_in: int
    centre: Tensor
    names: tuple[str, ...]

    @property
    def members(self) -> int:
        """The number of members with separate values; 1 for shared parameters."""
        return 1 if self.kind == "base" else len(self.centre)


def sites_of(
    network: nn.Module, centres: Mapping[str, Tensor], prefix: str = "", role: Role | None = None
) -> Iterator[tuple[str, Site]]:
    """Iterate over the trained parameters of a module, with their names in the module and their sites.

    Args:
        network: the module; frozen parameters have no sites.
        centres: the centres of the factors, by their names in the module.
        prefix: a prefix that is removed from the sites' names.
        role: the role of all sites; None: determined for each parameter.
    """
    kinds = parameter_kinds(network)
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name.removeprefix(prefix))
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
                    site_role := role or _role(module, own, kind),
                    _fan_in(module, own) if site_role in ("weight", "mix") else 1,
                    centres[name].to(parameter) if name in centres else parameter.new_ones(()).expand(parameter.shape),
                    tuple(names[parameter]),
                ),
            )


def prefix_of(network: nn.Module) -> str:
    """The prefix of the user's parameter names in a network's parameter names."""
    return "network." if isinstance(network, Members) else ""


def _role(module: nn.Module, own: str, kind: ParameterKind) -> Role:
    if kind == "factor":
        return "term" if is_further(own) else "factor"
    if isinstance(module, Rank1Layer) and own == "mix":
        return "mix"
    if "bias" in own or own == "threshold":
        return "bias"
    if isinstance(module, nn.LayerNorm | MemberLayerNorm):
        return "norm"
    axes = getattr(module, own).ndim - (kind == "member")  # a parameter with one value per channel is a norm's scale
    return "norm" if axes <= 1 else "weight"


def _fan_in(module: nn.Module, own: str) -> int:
    weight = getattr(module, own)
    if isinstance(module, Rank1Layer):
        return module.fan_in() if own == "weight" else weight.shape[1]
    # Token and position embeddings are looked up or added: only parameters named "weight" are matrices of a product.
    if "weight" not in own or isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return 1
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return max(1, weight[:, 0].numel() // module.groups)
    is_own = isinstance(module, Factored) and own in module.member_parameters
    return weight[(0,) * (1 + is_own)].numel()
