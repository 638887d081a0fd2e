"""How modules of torch become layers that serve all members: in place, by exact type, once per object."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import escape
from typing import Literal

from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.attention import Rank1MultiheadAttention, without_fast_paths
from bayes_share.layers.conv import (
    Rank1Conv1d,
    Rank1Conv2d,
    Rank1Conv3d,
    Rank1ConvTranspose1d,
    Rank1ConvTranspose2d,
    Rank1ConvTranspose3d,
)
from bayes_share.layers.copying import check_initialised
from bayes_share.layers.embedding import Rank1Embedding
from bayes_share.layers.factored import Factored, set_way
from bayes_share.layers.factors import ONE_TERM, FactorInit, FactorTerms
from bayes_share.layers.linear import Rank1Linear
from bayes_share.layers.norm import (
    FilterResponseNorm2d,
    MemberBatchNorm,
    MemberGroupNorm,
    MemberLayerNorm,
    ThresholdedLinearUnit,
)
from bayes_share.layers.way import Way
from bayes_share.sharing.redrawn_weights import drawn_anew, have_rows

NormSharing = Literal["shared", "member"]

_SHOWN = 4

# The parameters of what is converted; a hook puts a tensor in the place of one.
_COMPUTED = ("weight", "bias", "in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")

FACTORED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Rank1Linear,
    nn.Conv1d: Rank1Conv1d,
    nn.Conv2d: Rank1Conv2d,
    nn.Conv3d: Rank1Conv3d,
    nn.ConvTranspose1d: Rank1ConvTranspose1d,
    nn.ConvTranspose2d: Rank1ConvTranspose2d,
    nn.ConvTranspose3d: Rank1ConvTranspose3d,
    nn.Embedding: Rank1Embedding,
    nn.MultiheadAttention: Rank1MultiheadAttention,
}
"""What gets rank-1 factors, and what it becomes; `check_network` adds Hugging Face's linear layer."""

NORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: MemberBatchNorm,
    nn.BatchNorm2d: MemberBatchNorm,
    nn.BatchNorm3d: MemberBatchNorm,
    nn.GroupNorm: MemberGroupNorm,
    nn.LayerNorm: MemberLayerNorm,
    FilterResponseNorm2d: FilterResponseNorm2d,
    ThresholdedLinearUnit: ThresholdedLinearUnit,
}
"""What a norm becomes when each member has its own; the attributes of the two have the same names."""


def names_by_module(network: nn.Module) -> dict[nn.Module, list[str]]:
    """Every module of a network, once, with all its names: more than one where it is tied."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def chosen(
    network: nn.Module, include: tuple[str, ...] | None, exclude: tuple[str, ...]
) -> Callable[[Sequence[str]], bool]:
    """Whether a module of these names, of which a tied one has several, is to be converted.

    Args:
        network: whose names the patterns are for.
        include: names or patterns such as ``"layer4.*"``, of modules or of what they are in; None: everything.
        exclude: the same, of what is to stay shared.

    Raises:
        InputError: a pattern that matches nothing; names what there is.
    """
    convertible = [
        name
        for name, module in network.named_modules(remove_duplicate=False)
        if type(module) in FACTORED or type(module) in NORMS or type(module) in FACTORED.values()
    ]
    for pattern in (*(include or ()), *exclude):
        if not any(matches(name, pattern) for name in convertible):
            there = ", ".join(convertible[:8]) + (", …" if len(convertible) > 8 else "")
            raise InputError(f"the pattern {pattern!r} matches no layer that could be converted; there are {there}")

    def is_chosen(names: Sequence[str]) -> bool:
        def matched(patterns: tuple[str, ...]) -> bool:
            return any(matches(name, pattern) for name in names for pattern in patterns)

        return (include is None or matched(include)) and not matched(exclude)

    return is_chosen


@dataclass(frozen=True)
class Parts:
    """What members have of their own, and how it starts.

    Args:
        ensemble_size: members.
        init: how the factors of a module of these names start, and with them the weights of the members' own.
        terms: of the factors.
        way: how what gets factors computes; "auto" leaves the way that it has.
        why_shared: the reason why a module of these names is to stay as it is; None where it is not.
        is_own: whether the parameters of a module of these names are to be the members' own.
    """

    ensemble_size: int
    init: Callable[[Sequence[str]], FactorInit]
    terms: FactorTerms
    way: Way
    why_shared: Callable[[Sequence[str]], str | None]
    is_own: Callable[[Sequence[str]], bool]


def convert(network: nn.Module, parts: Parts) -> dict[str, str]:
    """Give the layers of a network factors, and what is to be the members' own a row for each of them, in place.

    Layers that have factors already, because they share within the network, have them multiplied by each member's.
    Each object stays the same one: whatever refers to it, and whatever it holds, stays as it was.

    Args:
        network: to be changed.
        parts: what members have of their own.

    Returns:
        The names of modules that stay shared, each with the reason. Where a module that contains others, such as the
        network itself, has parameters too, their names stand in place of the module's.
    """
    own, of_one = Owner(parts.ensemble_size), Owner(1)
    shared: dict[str, str] = {}
    seen: set[nn.Module] = set()
    for module, names in names_by_module(network).items():
        if module in seen:
            continue  # became one with the module that it is a part of
        kind, is_own, has_factors = type(module), parts.is_own(names), isinstance(module, Factored)
        reason = _why_not(module, names, parts.why_shared, parts.is_own, parts.terms)
        if (has_factors or kind in FACTORED) and reason is None:
            terms, init = ONE_TERM if is_own else parts.terms, parts.init(names)
            drawn: dict[str, Tensor] = {}
            if init.is_fresh:
                if not is_own:
                    raise InputError(f'init "fresh" requires layers in own, and {names[0]} is not: add it to own')
                drawn, init = drawn_anew(module, parts.ensemble_size, names[0]), FactorInit("ones")
            module.__class__ = FACTORED.get(kind, kind)
            module.add_factors(parts.ensemble_size, init, terms)  # type: ignore[operator]
            if parts.way != "auto":
                set_way(module, parts.way)
            for part in [part for part in module.modules() if isinstance(part, Factored)]:
                # What members that differ by fixed signs alone have of their own is asked for by name.
                owner = of_one if init.is_fixed and not is_own else own
                owner(part, *part.member_parameters, have_rows=has_factors)
                if is_own:
                    part.own_weights()
                seen.add(part)
            have_rows(module, drawn)
        elif kind in NORMS and reason is None:
            _own_norm(module, own)
        elif has_parameters(module):
            seen.update(module.modules() if has_factors else ())
            shared |= _left_shared(module, names[0], str(reason))
    without_fast_paths(network)
    return shared


def _left_shared(module: nn.Module, name: str, reason: str) -> dict[str, str]:
    """Return the reason by the module's name, or by the names of the parameters of a module that contains others."""
    if next(module.children(), None) is None or isinstance(module, Factored) or type(module) in FACTORED:
        return {name: reason}
    parameters = (own for own, _ in module.named_parameters(recurse=False))
    return {f"{name}.{own}" if name else own: "parameters outside of layers" for own in parameters}


def _why_not(
    module: nn.Module,
    names: Sequence[str],
    why_shared: Callable[[Sequence[str]], str | None],
    is_own: Callable[[Sequence[str]], bool],
    terms: FactorTerms,
) -> str | None:
    """The reason why a module is not to be converted; None where it is."""
    reason = _why_unknown(module) or why_shared(names)
    if reason is not None or is_own(names):
        return reason
    if type(module) in NORMS:
        return "norms, not listed in own"
    if terms.is_additive and type(module) in (nn.Embedding, Rank1Embedding):
        return "embeddings do not support additive factors"
    return None


def layers_with_factors(
    network: nn.Module,
    why_shared: Callable[[Sequence[str]], str | None],
    is_own: Callable[[Sequence[str]], bool],
    terms: FactorTerms,
) -> list[list[str]]:
    """The names of each layer that `convert` gives factors, in the order of their definition.

    Args:
        network: before it is converted.
        why_shared: as of `Parts`.
        is_own: as of `Parts`.
        terms: of the factors.
    """
    found: list[list[str]] = []
    inside: set[nn.Module] = set()
    for module, names in names_by_module(network).items():
        has_place = isinstance(module, Factored) or type(module) in FACTORED
        if has_place and module not in inside and _why_not(module, names, why_shared, is_own, terms) is None:
            found.append(names)
            inside.update(module.modules())
    return found


def chosen_as_own(
    network: nn.Module, own: Sequence[str], norm: NormSharing, is_chosen: Callable[[Sequence[str]], bool]
) -> Callable[[Sequence[str]], bool]:
    """Whether the parameters of a module of these names are to be the members' own.

    Args:
        network: whose names the patterns are for.
        own: names or patterns as in `chosen`, or the words "norms" (all of them) and "head" (the layer that was defined
            last, where no module has that name).
        norm: the old name: with "member", the norms that are converted are among them.
        is_chosen: whether a module of these names is to be converted.

    Raises:
        InputError: a pattern that matches nothing that could be the members' own, or no list of patterns.
    """
    if isinstance(own, str):
        raise InputError(f'own must be a list of names or patterns, such as own=("{own}",)')
    modules = names_by_module(network)
    norms = [names for module, names in modules.items() if type(module) in (*NORMS, *NORMS.values())]
    layers = [names for module, names in modules.items() if type(module) in (*FACTORED, *FACTORED.values())]
    patterns: list[str] = []
    for pattern in own:
        is_there = any(matches(name, pattern) for names in (*norms, *layers) for name in names)
        if pattern == "norms" and not is_there:
            if not norms:
                raise InputError("own names norms, and this network has no supported norms")
            patterns += [escape(names[0]) for names in norms]
        elif pattern == "head" and not is_there and layers:
            patterns.append(escape(layers[-1][0]))
        else:
            patterns.append(pattern)
    if norm == "member":
        patterns += [escape(names[0]) for names in norms if is_chosen(names)]
    return chosen(network, tuple(patterns), ()) if patterns else lambda names: False


def _why_unknown(module: nn.Module) -> str | None:
    kind = type(module)
    if isinstance(module, Factored):
        return None
    if kind not in FACTORED and kind not in NORMS:
        is_namesake = any(known.__name__ == kind.__name__ for known in (*FACTORED, *NORMS))
        return f"layers of type {kind.__module__ + '.' if is_namesake else ''}{kind.__name__} are not supported"
    if has_computed_weight(module):
        return "weights computed by a hook"
    if kind is nn.Embedding and (module.max_norm is not None or module.sparse):
        return "embeddings with max_norm or sparse gradients are not supported"
    return None


def has_computed_weight(module: nn.Module) -> bool:
    """Whether a parameter of a module is made anew for each call, as weight norm, spectral norm and pruning do."""
    parts = (module, module.out_proj) if isinstance(module, nn.MultiheadAttention) else (module,)
    tensors = [getattr(part, name, None) for part in parts for name in _COMPUTED]
    return any(isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter) for tensor in tensors)


class Owner:
    """Gives each member a copy of a parameter or buffer; what was tied before is tied afterwards.

    Args:
        ensemble_size: members.
    """

    def __init__(self, ensemble_size: int) -> None:
        self.ensemble_size = ensemble_size
        # By identity, with the shared one kept alive so that its identity is not used again.
        self.owned: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, module: nn.Module, *names: str, have_rows: bool = False) -> None:
        """Replace parameters and buffers of a module.

        Args:
            module: is changed.
            names: of what it may have.
            have_rows: whether they are ``[1, ...]``, one member's, already.
        """
        for name in names:
            shared = getattr(module, name, None)
            if shared is None:
                continue
            if id(shared) not in self.owned:
                self.owned[id(shared)] = (shared, self._copies(shared, have_rows))
            setattr(module, name, self.owned[id(shared)][1])

    def _copies(self, shared: Tensor, have_rows: bool) -> Tensor:
        one = shared.detach()[0] if have_rows else shared.detach()
        copies = one.expand(self.ensemble_size, *one.shape).clone()
        return nn.Parameter(copies, shared.requires_grad) if isinstance(shared, nn.Parameter) else copies


def _own_norm(module: nn.Module, own: Owner) -> None:
    has_statistics = isinstance(module, nn.modules.batchnorm._BatchNorm)
    if not has_parameters(module) and not has_statistics:
        return  # nothing of it could be a member's own
    module.__class__ = NORMS[type(module)]
    module.ensemble_size = own.ensemble_size  # type: ignore[assignment]
    own(module, *module.member_parameters, *getattr(module, "member_buffers", ()))  # type: ignore[misc]


def check_network(net: nn.Module) -> None:
    """Raise an InputError unless it is a module, not its class, name or parameters, and has all its shapes."""
    if not isinstance(net, nn.Module):
        what = f"the class {net.__name__}" if isinstance(net, type) else f"{type(net).__name__} {net!r:.60}"
        raise InputError(f"a network must be an instance of torch.nn.Module, not {what}")
    check_initialised(net)
    know_hugging_face()


def know_hugging_face() -> None:
    """Convert Hugging Face's linear layer too, where transformers is loaded: otherwise no network has one."""
    found = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    if found is not None and found not in FACTORED:
        from bayes_share.layers.hugging_face import Rank1Conv1D

        FACTORED[found] = Rank1Conv1D


def has_parameters(module: nn.Module) -> bool:
    """Whether a module has parameters that are not those of a module in it."""
    return next(module.parameters(recurse=False), None) is not None


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern is for a module of this name, or for one that it is in."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def describe(shared: dict[str, str]) -> dict[str, str]:
    """Return the names of what stays shared by reason; of many names, the first and their number."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in shared.items():
        by_reason.setdefault(reason, []).append(name or "the network itself")
    return {reason: listed_names(names) for reason, names in by_reason.items()}


def listed_names(names: Sequence[str]) -> str:
    """Names in a line; of many, the first and their number."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def owns_parameters(module: nn.Module) -> bool:
    """Whether all parameters of a module are the members' own."""
    if isinstance(module, Factored):
        return module.owns_weights
    return type(module) in NORMS.values() and getattr(module, "ensemble_size", None) is not None
