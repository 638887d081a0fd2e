"""What is learned of a network, parameter by parameter: the sites that priors are for."""

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
    """A parameter that is learned, as a rule for priors sees it.

    Args:
        name: in the user's network, as in ``layers.1.weight``.
        kind: shared by all members ("base"), a member's own ("member"), or a rank-1 factor ("factor").
        role: "weight", "bias", "norm" (the scale of a norm), "factor" (r or s), "term" (a factor of a further term),
            "mix" (how much of each template a layer takes), or "likelihood" (what a likelihood learns).
        fan_in: of a weight, how many inputs each output of its layer sums over, whatever the weight is made of; of a
            mixture, how many templates; 1 where it is no sum.
        centre: where its numbers started: of factors +1 or -1, as they were when the model was made, and 0 in further
            terms; 1 for anything else. Of its shape, ``[...]``, or ``[member, ...]`` where it is a member's own, and
            with its dtype and device.
        names: all that it has in the user's network, the first one included: a tied parameter has several.
    """

    name: str
    kind: ParameterKind
    role: Role
    fan_in: int
    centre: Tensor
    names: tuple[str, ...]

    @property
    def members(self) -> int:
        """How many members have a part of it each; 1 where they share it."""
        return 1 if self.kind == "base" else len(self.centre)


def sites_of(
    network: nn.Module, centres: Mapping[str, Tensor], prefix: str = "", role: Role | None = None
) -> Iterator[tuple[str, Site]]:
    """Every parameter that is learned: its name in the module, and the site.

    Args:
        network: frozen parameters are known, and no sites.
        centres: of the factors, by their name in the module.
        prefix: left out of the sites' names.
        role: of all; None: by what each is.
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
                    of_module := role or _role(module, own, kind),
                    _fan_in(module, own) if of_module in ("weight", "mix") else 1,
                    centres[name].to(parameter) if name in centres else parameter.new_ones(()).expand(parameter.shape),
                    tuple(names[parameter]),
                ),
            )


def prefix_of(network: nn.Module) -> str:
    """What stands before the names of the user's network in those of a network."""
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
    axes = getattr(module, own).ndim - (kind == "member")  # one number for each channel is the scale of a norm
    return "norm" if axes <= 1 else "weight"


def _fan_in(module: nn.Module, own: str) -> int:
    weight = getattr(module, own)
    if isinstance(module, Rank1Layer):
        return module.fan_in() if own == "weight" else weight.shape[1]
    # Tokens, positions and the like are looked up or added: only what is named a weight is taken for a matrix.
    if "weight" not in own or isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return 1
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return max(1, weight[:, 0].numel() // module.groups)
    is_own = isinstance(module, Factored) and own in module.member_parameters
    return weight[(0,) * (1 + is_own)].numel()
