"""The base class of modules with rank-1 factors."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.expansion import Pair, expand_weight
from bayes_share.layers.factor_parameters import check_ensemble_size, own_parameter, row_of
from bayes_share.layers.factors import ONE_TERM, FactorForm, FactorInit, FactorTerms
from bayes_share.layers.masks import input_masks
from bayes_share.layers.rows import spread
from bayes_share.layers.signs import draw_seeds, signs_from
from bayes_share.layers.way import FOLD_ABOVE, Way, check_way, folds_weights

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of one member's factors, by name."""

FIXED = "_fixed"
"""The suffix of the names of fixed factors, which are not trained."""

_TERMS = ("more_", "add_")  # prefixes of the factors of further multiplied terms and of added terms


def with_terms(*names: str) -> tuple[str, ...]:
    """Return the names of factors and of their further terms, multiplied ("more_r") and added ("add_r")."""
    return (*names, *(f"{terms}{name}" for terms in _TERMS for name in names))


def is_further(name: str) -> bool:
    """Whether a factor belongs to a further term, which is initialised near 0 instead of 1 or -1."""
    return name.startswith(_TERMS)


class Factored(nn.Module):
    """A torch module whose base weights are shared by the members of an ensemble, each with its own factors.

    A concrete class derives from this class and from a torch module, and keeps that module's options and parameter
    names. An existing torch module is converted in three steps: set its class, call `add_factors`, and replace the
    `member_parameters` of the module and its factored submodules by one copy per member. Optionally, `own_weights` then
    replaces base weight and factors by separate weights for each member.

    Fixed factors are buffers instead of parameters. Masks are stored in the state dict; for fixed signs only their
    seeds, `sign_seeds` ``[member]``, are stored.

    Args:
        args: the positional arguments of the torch module.
        ensemble_size: the number of members.
        init: the initialisation of the factors.
        way: "auto", "activations" or "weights", see `Way`; `set_way` changes it.
        factor_rank: the number of terms of each member, see `FactorTerms`.
        factor_form: "multiplied" or "additive", see `FactorTerms`.
        options: the keyword arguments of the torch module.

    Raises:
        InputError: if `ensemble_size` or `factor_rank` is below 1, or `way` or `factor_form` is unknown.
    """

    factor_parameters: ClassVar[tuple[str, ...]]
    """The names of all factors that the module may have."""
    member_parameters: tuple[str, ...]
    """The names of other parameters with a row for each member: biases, for example, or members' own weights."""
    added_parameters: ClassVar[tuple[str, ...]]
    """The names of parameters that the plain module does not have."""
    shares_across: bool = False
    """Whether `share_layers` replaced its weight by one that other layers share."""
    way: Way = "auto"
    """How it computes. Weights with blocks, templates, missing factors or further terms are always expanded."""
    fold_above: float = FOLD_ABOVE
    """The threshold for the way "auto"."""
    sign_seeds: Tensor
    """The seeds of fixed signs, ``[member]``."""
    sign_probability: float
    """The probability of +1 of fixed signs."""

    def __init__(
        self,
        *args: Any,
        ensemble_size: int = 1,
        init: FactorInit = FactorInit(),  # noqa: B008 (frozen)
        way: Way = "auto",
        factor_rank: int = 1,
        factor_form: FactorForm = "multiplied",
        **options: Any,
    ) -> None:
        check_ensemble_size(ensemble_size)
        check_way(way)
        terms = FactorTerms(factor_rank, factor_form)
        super().__init__(*args, **options)
        self.add_factors(ensemble_size, init, terms)
        for module in self.modules():
            if isinstance(module, Factored):
                module._own_member_parameters(1 if init.is_fixed else ensemble_size)
                module.way = way

    @abstractmethod
    def add_factors(self, ensemble_size: int, init: FactorInit, terms: FactorTerms = ONE_TERM) -> None:
        """Add factors for `ensemble_size` members, which are trained if their weight is.

        Existing factors, for one member, are multiplied into the new ones.
        """

    @abstractmethod
    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """Return the parameters of the plain module equivalent to one member, without those of submodules.

        Parameters with a single row are shared by all members.
        """

    def own_weights(self) -> None:
        """Replace base weight and factors by each member's expanded weight, in place."""
        members = self.ensemble_size
        with torch.no_grad():
            tensors = [self.member_tensors(member) for member in range(members)]
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters(recurse=False)}
        own = [name for name in tensors[0] if name not in self.member_parameters]
        for name in own:
            rows = torch.stack([member_tensors[name].detach() for member_tensors in tensors])
            setattr(self, name, nn.Parameter(rows, trained[name]))
        kept = [name for name in self.member_parameters if name not in self.added_parameters]
        self._forget_factors()
        for name in self.added_parameters:
            self.register_parameter(name, None)
        self.member_parameters = (*own, *kept)

    def remove_factors(self) -> None:
        """Convert the module in place to the plain module that is equivalent to its first member."""
        with torch.no_grad():
            tensors = self.member_tensors(0)
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters(recurse=False)}
        self.become_plain()
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor, trained[name]))

    def share_all(self) -> None:
        """Convert the module in place to a plain module with its base weights, shared by all members.

        Members' rows are replaced by the first row. Parameters remain the same objects, so that optimizers that hold
        them keep working.
        """
        for name in set(self.member_parameters) - set(self.added_parameters):
            if (rows := getattr(self, name)) is not None:
                rows.data = rows.data[0].clone()
        self.become_plain()

    def become_plain(self) -> None:
        """Set the class of the plain module and remove attributes that it does not have, keeping parameter values."""
        self._forget_factors()
        for name in ("way", "fold_above"):
            self.__dict__.pop(name, None)
        self.__class__ = next(kind for kind in type(self).__mro__ if not issubclass(kind, Factored))  # type: ignore[assignment]

    @property
    def ensemble_size(self) -> int:
        """The number of members whose factors and parameters this module holds."""
        return max((len(getattr(self, name)) for name in self.owned), default=1)

    @property
    def owned(self) -> tuple[str, ...]:
        """The names of the parameters and buffers with a row for each member."""
        fixed = (name for name in self._buffers if name.endswith(FIXED))
        names = (*self.factor_parameters, *self.member_parameters, "sign_seeds", *fixed)
        return tuple(name for name in names if getattr(self, name, None) is not None)

    @property
    def is_of_members_alone(self) -> bool:
        """Whether its base weights have the plain module's form and only members share them, so `share_all` applies."""
        factors = (getattr(self, name, None) for name in self.factor_parameters)
        has_blocks = any(factor is not None and factor.ndim == 4 for factor in factors)
        return not (has_blocks or self.owns_weights or self.shares_across or getattr(self, "mix", None) is not None)

    @property
    def has_fixed_factors(self) -> bool:
        """Whether it has fixed factors."""
        return any(name.endswith(FIXED) for name in self._buffers)

    @property
    def owns_weights(self) -> bool:
        """Whether each member has its own weights, instead of shared ones."""
        return any(name.endswith("weight") for name in self.member_parameters)

    def factor(self, name: str) -> Tensor | None:
        """Return a factor: the product of its learned part and its fixed part."""
        learned, fixed = getattr(self, name, None), getattr(self, f"{name}{FIXED}", None)
        if fixed is None or learned is None:
            return learned if fixed is None else fixed
        uses = max(len(learned), len(fixed))
        return spread(learned, uses) * spread(fixed, uses)

    def one_term(self, prefix: str = "") -> Pair | None:
        """Return the factors r and s if the weight of each use is simply ``W ∘ (s rᵀ)``, otherwise None.

        Args:
            prefix: the prefix of the factors' names, for modules with several weights.
        """
        r, s = self.factor(f"{prefix}r"), self.factor(f"{prefix}s")
        if r is None or s is None or r.ndim > 2 or self.has_further_terms(prefix):
            return None
        return r, s

    def has_further_terms(self, prefix: str = "") -> bool:
        """Whether there are terms besides r and s."""
        return any(self._pair(terms, prefix) is not None for terms in _TERMS)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        plain = super().extra_repr()
        way = "" if self.way == "auto" else f", way={self.way!r}"
        own = ", own weights" * self.owns_weights
        return f"{plain}{', ' if plain else ''}ensemble_size={self.ensemble_size}{own}{way}"

    def folds_weights(self, x: Tensor, weight: Tensor, uses: int) -> bool:
        """Whether it folds factors into a base weight, for an input that is divided among `uses`."""
        return folds_weights(self.way, x, weight, uses, self.fold_above)

    def expand(
        self,
        weight: Tensor,
        member: int | None = None,
        prefix: str = "",
        groups: int = 1,
        transposed: bool = False,
        mix: Tensor | None = None,
    ) -> Tensor:
        """Compute the weight of each use ``[use, *shape]``, or of one member ``[1, *shape]``.

        Args:
            weight: a base weight, or the members' own weights ``[member, *shape]``.
            member: the member; None: all uses, as many as the largest number of rows of a factor.
            prefix: the prefix of the factors' names.
            groups: as in `expand_weight`.
            transposed: as in `expand_weight`.
            mix: as in `expand_weight`.
        """
        if self.owns_weights:
            return weight if member is None else row_of(weight, member)
        pairs = [self._pair(terms, prefix) for terms in _TERMS]
        first = [self.factor(f"{prefix}{name}") for name in "rs"]
        factors = [*first, mix, *(factor for pair in pairs for factor in pair or ())]
        uses = max((len(factor) for factor in factors if factor is not None), default=1)

        def select(factor: Tensor | None) -> Any:
            if factor is None:
                return None
            return spread(factor, uses) if member is None else row_of(factor, member)

        r, s, mix = (select(factor) for factor in factors[:3])
        more, added = (None if pair is None else (select(pair[0]), select(pair[1])) for pair in pairs)
        return expand_weight(weight, r, s, groups, transposed, mix, more, added)

    def fix_factors(self, ensemble_size: int, shapes: Shapes, init: FactorInit, like: Tensor) -> None:
        """Register fixed factors: signs from new seeds, or input masks.

        Args:
            ensemble_size: the number of members.
            shapes: the shapes of one member's factors, by name; names of output factors end in "s".
            init: an initialisation with a fixed kind.
            like: a tensor with the dtype and device of the factors.
        """
        if init.kind == "mask":
            for name, shape in shapes.items():
                is_s = name.endswith("s")
                full_shape = (ensemble_size, *shape)
                mask = torch.ones(full_shape) if is_s else input_masks(full_shape, init.mask_scale)
                self.register_buffer(f"{name}{FIXED}", mask.to(like), persistent=not is_s)
            return
        self.register_buffer("sign_seeds", draw_seeds(ensemble_size, like.device))
        self.sign_probability = init.probability
        for name, shape in shapes.items():
            signs = signs_from(self.sign_seeds, name, shape, init.probability, like)
            self.register_buffer(f"{name}{FIXED}", signs, persistent=False)

    def set_terms(
        self, ensemble_size: int, shapes: Shapes, init: FactorInit, terms: FactorTerms, weight: Tensor
    ) -> None:
        """Register the factors of further terms. Call this before the first term is set.

        Existing factors, for one member, are multiplied into the multiplied terms. Added terms are also trained if the
        weight is frozen, as in LoRA.

        Args:
            ensemble_size: the number of members.
            shapes: the shapes of one member's factors, by name; names of output factors end in "s".
            init: the initialisation of the factors.
            terms: the number and the form of the terms.
            weight: the weight of one use.
        """
        if not terms.further:
            return
        for name, shape in shapes.items():
            is_s, full_shape = name.endswith("s"), (ensemble_size, terms.further, *shape)
            if terms.is_additive:
                drawn = init.draw_added(full_shape, weight, is_s)
            else:
                drawn = init.draw_further(full_shape, weight, is_s)
                if (existing := getattr(self, name, None)) is not None:
                    drawn = drawn * existing.detach().unsqueeze(1)
            prefix = _TERMS[terms.is_additive]
            self.register_parameter(f"{prefix}{name}", nn.Parameter(drawn, weight.requires_grad or terms.is_additive))

    def _pair(self, terms: str, prefix: str) -> Pair | None:
        r, s = (getattr(self, f"{terms}{prefix}{name}", None) for name in "rs")
        return None if r is None or s is None else (r, s)

    def _forget_factors(self) -> None:
        for name in self.added_parameters:
            self._parameters.pop(name, None)
        for name in [name for name in self._buffers if name.endswith(FIXED) or name == "sign_seeds"]:
            delattr(self, name)
        for name in ("shares_across", "member_parameters", "sign_probability"):
            self.__dict__.pop(name, None)

    def _own_member_parameters(self, ensemble_size: int) -> None:
        for name in self.member_parameters:
            if (shared := getattr(self, name)) is not None:
                setattr(self, name, own_parameter(shared, ensemble_size))

    def _load_from_state_dict(self, *args: Any) -> None:
        """Load, then recreate the fixed factors that are not in the state dict, on the device of the weight."""
        super()._load_from_state_dict(*args)
        like = next((parameter for parameter in self._parameters.values() if parameter is not None), None)
        for name in self._non_persistent_buffers_set:
            fixed = self._buffers.get(name)
            if name.endswith(FIXED) and fixed is not None:
                factor, target = name.removesuffix(FIXED), fixed if like is None else like
                if "sign_seeds" in self._buffers:
                    recreated = signs_from(self.sign_seeds, factor, fixed.shape[1:], self.sign_probability, target)
                else:
                    recreated = torch.ones(fixed.shape, dtype=target.dtype, device=target.device)
                self._buffers[name] = recreated


def set_way(network: nn.Module, way: Way) -> None:
    """Set how all rank-1 layers of a network compute, in place, also for predictions.

    Args:
        network: a network, or part of one, such as a single layer.
        way: "auto", "activations" or "weights", see `Way`.

    Raises:
        InputError: if the way is unknown, or the network has no rank-1 layers.

    >>> from bayes_share.layers.linear import Rank1Linear
    >>> layer = Rank1Linear(3, 2, ensemble_size=4)
    >>> set_way(layer, "weights")
    >>> layer
    Rank1Linear(in_features=3, out_features=2, bias=True, ensemble_size=4, way='weights')
    """
    check_way(way)
    layers = [module for module in network.modules() if isinstance(module, Factored)]
    if not layers:
        raise InputError(f"this {type(network).__name__} has no rank-1 layers")
    for layer in layers:
        layer.way = way
