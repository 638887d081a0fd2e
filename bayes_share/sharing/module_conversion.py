"""Converting a network in place: its layers get a part for each member. Layers are selected by exact type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bayes_share.errors import InputError
from bayes_share.layers.attention import without_fast_paths
from bayes_share.layers.embedding import Rank1Embedding
from bayes_share.layers.factored import Factored, set_way
from bayes_share.layers.factors import ONE_TERM, FactorInit, FactorTerms
from bayes_share.layers.way import Way
from bayes_share.sharing.convertible import FACTORED, NORMS, has_parameters, why_not_supported
from bayes_share.sharing.module_names import names_by_module
from bayes_share.sharing.redrawn_weights import drawn_anew, have_rows


@dataclass(frozen=True)
class Parts:
    """The part of the network that each member has for itself. The functions take all names of a module.

    Args:
        ensemble_size: Number of members.
        init: Returns the initialisation of a module's factors, or of its weights if members own them.
        terms: Rank and form of the factors.
        way: How converted layers compute; "auto" keeps the way that a layer has.
        why_shared: Returns the reason why a module stays shared, or None if it does not.
        is_own: Whether each member owns the parameters of a module.
    """

    ensemble_size: int
    init: Callable[[Sequence[str]], FactorInit]
    terms: FactorTerms
    way: Way
    why_shared: Callable[[Sequence[str]], str | None]
    is_own: Callable[[Sequence[str]], bool]


def convert(network: nn.Module, parts: Parts) -> dict[str, str]:
    """Convert a network in place: add factors to its layers, and a row for each member to parameters that members own.

    Layers that have factors already, because the network shares weights within itself, get the product of these and
    each member's factors. Modules keep their identity, so references to them stay valid.

    Args:
        network: The network to change.
        parts: What each member has for itself.

    Returns:
        The reason why a module stays shared, by the module's name. For a module that contains others, such as the
        network itself, the names are those of its parameters.

    Raises:
        InputError: "fresh" is the initialisation of a layer that members share.
    """
    own, of_one = Owner(parts.ensemble_size), Owner(1)
    shared: dict[str, str] = {}
    seen: set[nn.Module] = set()
    for module, names in names_by_module(network).items():
        if module in seen:
            continue  # was converted with the module that contains it
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
                # Members that differ by fixed signs alone share biases too, unless `own` names the layer.
                owner = of_one if init.is_fixed and not is_own else own
                owner(part, *part.member_parameters, have_rows=has_factors)
                if is_own:
                    part.own_weights()
                seen.add(part)
            have_rows(module, drawn)
        elif kind in NORMS and reason is None:
            _own_norm(module, own)
        elif has_parameters(module) or is_parametrized(module):
            seen.update(module.modules() if has_factors or kind in FACTORED else ())
            seen.update(module.parametrizations.values() if is_parametrized(module) else ())  # type: ignore[operator]
            shared |= _left_shared(module, names[0], str(reason))
    without_fast_paths(network)
    return shared


def layers_with_factors(
    network: nn.Module,
    why_shared: Callable[[Sequence[str]], str | None],
    is_own: Callable[[Sequence[str]], bool],
    terms: FactorTerms,
) -> list[list[str]]:
    """Return all names of each layer that `convert` gives factors, in the order of definition.

    Args:
        network: The network before conversion.
        why_shared: As in `Parts`.
        is_own: As in `Parts`.
        terms: Rank and form of the factors.
    """
    found: list[list[str]] = []
    inside: set[nn.Module] = set()
    for module, names in names_by_module(network).items():
        has_place = isinstance(module, Factored) or type(module) in FACTORED
        if has_place and module not in inside and _why_not(module, names, why_shared, is_own, terms) is None:
            found.append(names)
            inside.update(module.modules())
    return found


def _left_shared(module: nn.Module, name: str, reason: str) -> dict[str, str]:
    """Return the reason by the module's name, or by the names of the parameters of a module that contains layers."""
    if isinstance(module, (Factored, *FACTORED, *NORMS)) or next(module.children(), None) is None:
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
    """Return the reason why a module is not converted, or None if it is."""
    reason = why_not_supported(module) or why_shared(names)
    if reason is not None or is_own(names):
        return reason
    if type(module) in NORMS:
        return "norms, not listed in own"
    if terms.is_additive and type(module) in (nn.Embedding, Rank1Embedding):
        return "embeddings do not support additive factors"
    return None


class Owner:
    """Gives each member a copy of parameters and buffers. Tied parameters stay tied.

    Args:
        ensemble_size: Number of members.
    """

    def __init__(self, ensemble_size: int) -> None:
        self.ensemble_size = ensemble_size
        # By id. The original is kept alive so that its id is not reused.
        self.owned: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, module: nn.Module, *names: str, have_rows: bool = False) -> None:
        """Replace parameters and buffers of a module by ``[member, ...]`` copies, in place.

        Args:
            module: The module to change.
            names: Names of parameters and buffers. A name that the module lacks is skipped.
            have_rows: Whether the tensors have a first axis of length 1 for the member already.
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
        return  # it has no state that a member could own
    module.__class__ = NORMS[type(module)]
    module.ensemble_size = own.ensemble_size  # type: ignore[assignment]
    own(module, *module.member_parameters, *getattr(module, "member_buffers", ()))  # type: ignore[misc]
