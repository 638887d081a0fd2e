"""Names of modules: patterns that select modules, and lists of names for messages."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from typing import Literal

from torch import nn

from bayes_share.errors import InputError
from bayes_share.sharing.convertible import FACTORED, NORMS

NormSharing = Literal["shared", "member"]

_SHOWN = 4


def names_by_module(network: nn.Module) -> dict[nn.Module, list[str]]:
    """Return all names of each module. A tied module has several."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern matches the name of a module or of a module that contains it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def chosen(
    network: nn.Module, include: tuple[str, ...] | None, exclude: tuple[str, ...]
) -> Callable[[Sequence[str]], bool]:
    """Return a predicate that takes all names of a module and says whether the patterns select it.

    Args:
        network: The network that the names belong to.
        include: Names or patterns, such as ``"layer4.*"``, of modules or of modules that contain them. None: all.
        exclude: Names or patterns of modules to leave out.

    Raises:
        InputError: A pattern matches no layer; the message lists the layers.
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


def chosen_as_own(
    network: nn.Module, own: Sequence[str], norm: NormSharing, is_chosen: Callable[[Sequence[str]], bool]
) -> Callable[[Sequence[str]], bool]:
    """Return a predicate that takes all names of a module and says whether each member owns its parameters.

    Args:
        network: The network that the names belong to.
        own: Names or patterns as in `chosen`, or the words "norms" (all norms) and "head" (the layer defined last,
            unless a module has that name).
        norm: The old name of ``own=("norms",)``: "member" adds the norms that are converted.
        is_chosen: Whether a module with these names is converted.

    Raises:
        InputError: A pattern matches nothing that members can own, or `own` is not a list.
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


def by_reason(shared: Mapping[str, str]) -> dict[str, str]:
    """Group names by their reason, as one line of text for each reason."""
    names: dict[str, list[str]] = {}
    for name, reason in shared.items():
        names.setdefault(reason, []).append(name or "the network itself")
    return {reason: listed_names(found) for reason, found in names.items()}


def listed_names(names: Sequence[str]) -> str:
    """Join names with commas. Of a long list, show the first ones and the number of the others."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
