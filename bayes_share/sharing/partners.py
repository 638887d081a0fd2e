"""Selecting the layers of a network that share a weight."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from torch import nn

from bayes_share.errors import InputError
from bayes_share.layers.attention import Rank1MultiheadAttention
from bayes_share.layers.factored import Factored
from bayes_share.layers.rank1 import Rank1Layer
from bayes_share.sharing.convertible import FACTORED, has_computed_weight, know_hugging_face
from bayes_share.sharing.module_names import matches, names_by_module

Which: TypeAlias = (
    Literal["all", "early", "deep"] | str | Sequence[str] | Sequence[Sequence[str]] | Callable[[str, nn.Module], bool]
)
"""Layers to share: all, the first or second half, patterns, sets of patterns, or a predicate."""

_SHOWN = 6


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers, convolutions and attentions of a network, in order, each once under its first name.

    Layers whose weights the members own are left out.
    """
    know_hugging_face()
    layers: dict[str, nn.Module] = {}
    parts: set[nn.Module] = set()
    for module, names in names_by_module(network).items():
        becomes = FACTORED.get(type(module), type(module))
        if module in parts or not issubclass(becomes, Rank1Layer | Rank1MultiheadAttention):
            continue
        parts.update(module.modules())
        if isinstance(module, Factored) and module.owns_weights:
            continue  # members do not share it
        if becomes is Rank1MultiheadAttention or not has_computed_weight(module):
            layers[names[0]] = module
    return layers


def other_weights(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose weight cannot be shared, by name: unsupported types, and computed weights."""
    known = {part for layer in layers_of(network).values() for part in layer.modules()}
    found: dict[str, nn.Module] = {}
    for module, names in names_by_module(network).items():
        if module in known:
            continue
        if has_computed_weight(module):
            known.update(module.modules())
            found[names[0]] = module
        elif any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            found[names[0]] = module
    return found


def base_weights(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a layer that it can share with others, by name."""
    return {name: weight for name, weight in layer.named_parameters() if name.endswith("weight")}


def weight_shape(layer: nn.Module) -> tuple[int, ...]:
    """Return the shape of a layer's whole weight."""
    if isinstance(layer, Rank1Layer):
        return layer.base_shape()
    return tuple(next(iter(base_weights(layer).values())).shape)


def users_of(network: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Return the first names of the modules that hold each parameter."""
    users: dict[nn.Parameter, list[str]] = {}
    for name, module in network.named_modules():
        for parameter in {parameter: None for _, parameter in module.named_parameters(recurse=False)}:
            users.setdefault(parameter, []).append(name)
    return users


def partners(network: nn.Module, which: Which) -> list[list[str]]:
    """Return groups of at least two layers of equal type and shape that are to share a weight, by name.

    Args:
        network: The network.
        which: See `share_layers`.

    Raises:
        InputError: A pattern matches nothing; a layer is named twice; a named layer shares its weight already or has no
            partner of its shape; or there is nothing to share.
    """
    layers = layers_of(network)
    users = users_of(network)
    others = {name: _others(name, layer, users) for name, layer in layers.items()}
    sets, named = _chosen(network, layers, which)
    for name in named:
        if others[name]:
            raise InputError(f"{name} already shares its weight with {', '.join(others[name])}: name it once")
    groups: list[list[str]] = []
    for names in sets:
        alike = _by_likeness({name: layers[name] for name in names if not others[name]})
        groups += [group for group in alike if len(group) > 1]
        for group in alike:
            if len(group) == 1 and group[0] in named:
                raise InputError(
                    f"{group[0]} has no partner of equal shape among the layers named with it: "
                    f"{described(layers, names)}"
                )
    if not groups:
        tied = [name for name in layers if others[name]]
        besides = f"; {', '.join(tied[:_SHOWN])} already share theirs" if tied else ""
        if rest := listed(other_weights(network)):
            besides += f"; other types, or computed weights: {rest}"
        raise InputError(
            f"no layers to share for {_shown(which)}: no two layers have weights of equal type and shape; there "
            f"are {described(layers, layers)}{besides}"
        )
    return groups


def described(layers: Mapping[str, nn.Module], names: Iterable[str]) -> str:
    """Return the types and shapes of layers, with the number of each."""
    kinds = Counter(f"{_plain_type(layers[name]).__name__} {shape_text(weight_shape(layers[name]))}" for name in names)
    lines = [f"{kind} ({count})" if count > 1 else kind for kind, count in kinds.items()]
    return ", ".join(lines[:_SHOWN]) + (", …" if len(lines) > _SHOWN else "") if lines else "no layers"


def listed(modules: Mapping[str, nn.Module]) -> str:
    """Return names and types of modules, as text."""
    lines = [f"{name or 'the network itself'} ({type(module).__name__})" for name, module in modules.items()]
    return ", ".join(lines[:_SHOWN]) + (", …" if len(lines) > _SHOWN else "")


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as text.

    >>> shape_text((16, 16, 3, 3))
    '16x16x3x3'
    """
    return "x".join(map(str, shape))


def _chosen(network: nn.Module, layers: Mapping[str, nn.Module], which: Which) -> tuple[list[list[str]], list[str]]:
    """Return the sets of layers that share within themselves, and the layers that were named one by one."""
    if which in ("all", "early", "deep"):
        paired = {name for group in _by_likeness(layers) if len(group) > 1 for name in group}
        ordered = [name for name in layers if name in paired]
        half = (len(ordered) + 1) // 2
        return [{"all": ordered, "early": ordered[:half], "deep": ordered[-half:]}[str(which)]], []
    if callable(which):
        return [[name for name, layer in layers.items() if which(name, layer)]], []
    given = [which] if isinstance(which, str) else which
    loose = [pattern for pattern in given if isinstance(pattern, str)]
    sets = ([loose] if loose else []) + [list(one) for one in given if not isinstance(one, str)]
    all_names = names_by_module(network)
    found: list[list[str]] = []
    for patterns in sets:
        matched: dict[str, None] = {}
        for pattern in patterns:
            names = [n for n, layer in layers.items() if any(matches(name, pattern) for name in all_names[layer])]
            if not names:
                raise InputError(
                    f"the pattern {pattern!r} matches no layer that could share its weight; there are "
                    f"{', '.join(list(layers)[:_SHOWN])}{', …' if len(layers) > _SHOWN else ''}, of shapes "
                    f"{described(layers, layers)}"
                )
            matched |= dict.fromkeys(names)
        found.append(list(matched))
    counts = Counter(name for names in found for name in names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"{twice[0]} is in two sets of patterns, and a layer can share only one weight")
    return found, [pattern for patterns in sets for pattern in patterns if pattern in layers]


def _by_likeness(layers: Mapping[str, nn.Module]) -> list[list[str]]:
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, layer in layers.items():
        groups.setdefault(_likeness(layer), []).append(name)
    return list(groups.values())


def _likeness(layer: nn.Module) -> tuple[Any, ...]:
    """Return a key that is equal for layers between which a weight can be shared."""
    weights = base_weights(layer)
    first = next(iter(weights.values()))
    blocks = layer.blocks() if isinstance(layer, Rank1Layer) else (1, 1)
    own = (getattr(layer, "groups", 1), getattr(layer, "num_heads", None), blocks)
    of_weights = [(name, weight_shape(layer) if name == "weight" else weight.shape) for name, weight in weights.items()]
    return (_plain_type(layer), *own, tuple(of_weights), first.dtype, first.device, first.requires_grad)


def _plain_type(layer: nn.Module) -> type:
    return next(kind for kind in type(layer).__mro__ if not issubclass(kind, Factored))


def _others(name: str, layer: nn.Module, users: Mapping[nn.Parameter, list[str]]) -> list[str]:
    """Return the other modules that hold a weight of a layer."""
    own = {name, *(f"{name}.{part}" for part, _ in layer.named_modules() if part)}
    return sorted({user for weight in base_weights(layer).values() for user in users[weight] if user not in own})


def _shown(which: Which) -> str:
    return "the predicate" if callable(which) else f"which={which!r}"
