"""Initialisation of the factors of each layer, by patterns of layer names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from typing import Any, Literal, get_args

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.layers.factors import FactorInit, FactorInitKind, FactorTerms, keeping
from bayes_share.sharing.module_names import listed_names, matches

Kept = Literal["keep"]
Start = Kept | FactorInitKind
"""Initialisation of a layer's factors: "keep" for a trained network, or a kind of `FactorInit`."""

_PURPOSES = {
    "keep": "for a trained network: the members preserve what it has learned",
    "normal": "for training from scratch",
    "standard_normal": "for training from scratch",
    "random_sign": "for training from scratch",
    "fixed_sign": "for training from scratch; made from a seed for each layer and member",
    "ones": "members are copies of the network, and differ only by their data or random draws",
    "fresh": "for training from scratch; each member initialises its own weights",
    "mask": "for training from scratch; fixed masks of the inputs of each layer",
}
_REST = "*"
_PLACES = {"first": 0, "head": -1}  # positions among the layers with factors
_FACTORS = ("r", "s")
_BOTH = "rs"


@dataclass(frozen=True)
class Starts:
    """The initialisation of each layer's factors.

    Attributes:
        rules: A pattern of layer names, the factors that it applies to ("r", "s" or "rs"), and their initialisation.
            The last rule that matches counts.
        words: The same as text.
    """

    rules: tuple[tuple[str, str, FactorInit], ...]
    words: str

    def of(self, names: Sequence[str]) -> FactorInit:
        """Return the initialisation of a layer, given all its names."""
        r, s = (
            next(
                init for pattern, factors, init in reversed(self.rules) if factor in factors and _is_for(pattern, names)
            )
            for factor in _FACTORS
        )
        return r if r == s else replace(r, of_s=s.for_factor("s"))


def starts_of(
    init: Start | FactorInit | Mapping[str, Start | FactorInit],
    network: nn.Module,
    layers: Sequence[Sequence[str]],
    terms: FactorTerms,
) -> Starts:
    """Resolve the `init` argument of `ensemble` for the layers of a network.

    Args:
        init: As in `ensemble`.
        network: The network.
        layers: All names of each layer that gets factors, in the order of definition.
        terms: Rank and form of the factors.

    Raises:
        InputError: An initialisation is unknown or does not suit such factors; a pattern matches no layer; or no
            pattern matches a layer.
    """
    if not isinstance(init, Mapping):
        found = _factor_init(init, len(layers), terms)
        words = str(init) if isinstance(init, FactorInit) else f'{found} ("{init}"), {_PURPOSES[init]}'
        return Starts(((_REST, _BOTH, found),), _with_terms(words, terms))
    if not layers:
        return Starts((), "")  # `ensemble` raises an error
    rules: list[tuple[str, str, FactorInit]] = []
    shown: list[str] = []
    # "*" comes first, since it applies only where no other pattern matches, wherever it stands.
    for pattern in sorted(init, key=lambda pattern: pattern != _REST):
        found, (resolved, factors) = (
            _factor_init(init[pattern], len(layers), terms),
            _resolved(pattern, network, layers),
        )
        rules.append((resolved, factors, found))
        shown.append(f"{found} ({pattern if resolved == pattern else f'{pattern}: {resolved}'})")
    for factor in _FACTORS:
        known = [pattern for pattern, factors, _ in rules if factor in factors]
        if without := [names for names in layers if not any(_is_for(pattern, names) for pattern in known)]:
            raise InputError(f'init does not cover {_shown(without)}: add "{_REST}" for all other layers')
    return Starts(tuple(rules), _with_terms("; ".join(shown), terms))


def read_starts(
    text: str, sd: float = 0.5, probability: float = 0.5
) -> Kept | FactorInit | dict[str, Kept | FactorInit]:
    """Read initialisations from the text of an option.

    Args:
        text: "keep" or a kind of `FactorInit`; or PATTERN=KIND pairs, separated by commas.
        sd: Standard deviation for "normal".
        probability: Probability of +1 for signs.

    Raises:
        InputError: A kind is unknown, or a pattern is missing or given twice.

    >>> {pattern: str(start) for pattern, start in read_starts("head=normal,*=ones").items()}
    {'head': 'N(1, 0.5²)', '*': '1'}
    """
    if "=" not in text:
        return _start(text.strip(), sd, probability)
    starts: dict[str, Kept | FactorInit] = {}
    for part in text.split(","):
        pattern, _, kind = (word.strip() for word in part.rpartition("="))
        if not pattern:
            raise InputError(f"init {text!r}: {part.strip()!r} should be PATTERN=KIND, such as first=random_sign")
        if pattern in starts:
            raise InputError(f"init {text!r} has two entries for {pattern!r}")
        starts[pattern] = _start(kind, sd, probability)
    return starts


def _start(name: str, sd: float, probability: float) -> Kept | FactorInit:
    if name == "keep":
        return "keep"
    for kind in get_args(FactorInitKind):
        if kind == name:
            return FactorInit(kind, sd, probability)
    raise unknown("factor init", name, ("keep", *get_args(FactorInitKind)))


def _factor_init(init: Any, layers: int, terms: FactorTerms) -> FactorInit:
    if not isinstance(init, FactorInit) and init not in tuple(_PURPOSES):
        raise unknown("factor init", init, _PURPOSES)
    found = init if isinstance(init, FactorInit) else keeping(layers) if init == "keep" else FactorInit(init)
    if terms.is_additive and (found.kind not in ("normal", "ones", "fresh") or found.of_s is not None):
        raise InputError(
            f'additive factors require init "normal", "ones" or "keep", the same for r and s, not {found.kind!r}'
        )
    return found


def _resolved(pattern: Any, network: nn.Module, layers: Sequence[Sequence[str]]) -> tuple[str, str]:
    """Replace "first" and "head" in a pattern by names, and return it with the factors that it applies to.

    Raises:
        InputError: It matches no layer; the message lists the layers.
    """
    if not isinstance(pattern, str):
        raise InputError(f'the patterns of init must be names of modules, such as "{pattern}", not {pattern!r}')
    if pattern == _REST or any(_is_for(pattern, names) for names in layers):
        return pattern, _BOTH
    of_layer, _, factor = pattern.rpartition(".")
    if factor in _FACTORS and of_layer:
        return _resolved(of_layer, network, layers)[0], factor
    is_name = any(matches(name, pattern) for name, _ in network.named_modules(remove_duplicate=False))
    if pattern in _PLACES and layers and not is_name:
        return escape(layers[_PLACES[pattern]][0]), _BOTH
    there = _shown(layers) or "none"
    raise InputError(f"the pattern {pattern!r} of init matches no layer with factors; there are {there}")


def _shown(layers: Sequence[Sequence[str]]) -> str:
    return listed_names([names[0] or "the network itself" for names in layers])


def _is_for(pattern: str, names: Sequence[str]) -> bool:
    return any(matches(name, pattern) for name in names)


def _with_terms(words: str, terms: FactorTerms) -> str:
    return words if terms == FactorTerms() else f"{words}; {terms}"
