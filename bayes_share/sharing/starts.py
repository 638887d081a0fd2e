"""How the factors of each layer start: all alike, or as rules by the layers' names say."""

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
"""How the factors of a layer start: "keep" for a trained network, or a kind of `FactorInit`."""

_PURPOSES = {
    "keep": "for a trained network: the members preserve what it has learned",
    "normal": "for training from scratch",
    "standard_normal": "for training from scratch",
    "random_sign": "for training from scratch",
    "fixed_sign": "for training from scratch; fixed signs, made from a seed for each layer",
    "ones": "members are copies of the network, and differ only by their data or random draws",
    "fresh": "for training from scratch; each member initialises its own weights",
    "mask": "for training from scratch; fixed masks of the inputs of each layer",
}
_REST = "*"
_PLACES = {"first": 0, "head": -1}  # among the layers with factors, of words that are no module's name
_FACTORS = ("r", "s")
_BOTH = "rs"


@dataclass(frozen=True)
class Starts:
    """How the factors of each layer start.

    Attributes:
        rules: patterns of layers' names, each with the factors that it is for, "r", "s" or both, and their start. The
            last one that matches counts.
        words: the same, for people.
    """

    rules: tuple[tuple[str, str, FactorInit], ...]
    words: str

    def of(self, names: Sequence[str]) -> FactorInit:
        """The start of a layer of these names, of which a tied one has several."""
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
    """The starts of all layers of a network.

    Args:
        init: as of `ensemble`.
        network: whose layers they are.
        layers: the names of each layer that gets factors, in the order in which the network defines them.
        terms: of the factors.

    Raises:
        InputError: an unknown start, or one that such factors cannot have; a pattern that matches no layer, or a layer
            that none matches.
    """
    if not isinstance(init, Mapping):
        found = _factor_init(init, len(layers), terms)
        words = str(init) if isinstance(init, FactorInit) else f'{found} ("{init}"), {_PURPOSES[init]}'
        return Starts(((_REST, _BOTH, found),), _with_terms(words, terms))
    if not layers:
        return Starts((), "")  # `ensemble` says that there are none
    rules: list[tuple[str, str, FactorInit]] = []
    shown: list[str] = []
    # The rest is whatever no other rule is for, wherever it stands.
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
    """A start, or starts by patterns, as they are written in an option.

    Args:
        text: "keep" or a kind of `FactorInit`, or ``PATTERN=KIND`` for each pattern, with commas between.
        sd: of "normal".
        probability: of +1, in signs.

    Raises:
        InputError: an unknown kind, no pattern, or one that is given twice.

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
            f'additive factors require init "normal", "ones" or, in Python, "keep" for both factors, not {found.kind!r}'
        )
    return found


def _resolved(pattern: Any, network: nn.Module, layers: Sequence[Sequence[str]]) -> tuple[str, str]:
    """A pattern in terms of names alone, and the factors that it is for.

    Raises:
        InputError: it is for no layer; names those that there are.
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
