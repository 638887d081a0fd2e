"""What modules with rank-1 factors have in common, and how factors and members' parameters are made."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.expansion import Pair, expand_weight
from bayes_share.layers.factors import ONE_TERM, FactorForm, FactorInit, FactorTerms
from bayes_share.layers.masks import overlapping_masks
from bayes_share.layers.rows import spread
from bayes_share.layers.signs import draw_seeds, signs_from
from bayes_share.layers.way import FOLD_ABOVE, Way, check_way, folds_weights

Shapes = Mapping[str, tuple[int, ...]]
"""Of one member's factors, by their names."""

FIXED = "_fixed"
"""What the names of factors that stay as they are end with."""

_TERMS = ("more_", "add_")


def with_terms(*names: str) -> tuple[str, ...]:
    """The names of factors, and those of their further terms, multiplied ("more_r") and added ("add_r")."""
    return (*names, *(f"{terms}{name}" for terms in _TERMS for name in names))


def is_further(name: str) -> bool:
    """Whether a factor of this name is of a term beyond the first, which starts small and not at 1 or -1."""
    return name.startswith(_TERMS)


class Factored(nn.Module):
    """A module of torch whose base weights are shared by the members of an ensemble, each with factors of its own.

    A final class derives from this one and from the torch module, whose options and names of parameters it keeps. A
    module that exists becomes one in three steps: its class is set, `add_factors` is called, and the
    `member_parameters`, of it and of what is then factored inside it, are replaced by a copy for each member. A fourth
    step, `own_weights`, makes a weight of each member's own of what the factors give.

    Factors that stay as they are, are no parameters but buffers: signs, in whose place `sign_seeds` ``[member]`` are
    kept, and masks.

    Args:
        args: what the torch module takes.
        ensemble_size: members.
        init: how the factors start.
        way: how it computes: "auto", "activations" or "weights", see `Way`; `set_way` changes it.
        factor_rank: terms of each member's part of a weight, see `FactorTerms`.
        factor_form: "multiplied" or "additive", see `FactorTerms`.
        options: what the torch module takes.

    Raises:
        InputError: an ensemble of fewer than one member, fewer than one term, an unknown way or form.
    """

    factor_parameters: ClassVar[tuple[str, ...]]
    member_parameters: tuple[str, ...]
    """What each member has a row of, beside the factors; of a layer whose weights are the members' own, these too."""
    added_parameters: ClassVar[tuple[str, ...]]
    """What the plain module does not have."""
    shares_across: bool = False
    """Whether `share_layers` gave it a weight of other layers, which it does not have where nothing is shared."""
    way: Way = "auto"
    """How it computes; of what has to be expanded (blocks, templates, missing factors, further terms) there is one way
    only."""
    fold_above: float = FOLD_ABOVE
    """The threshold of the way "auto"."""
    sign_seeds: Tensor
    sign_probability: float

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
        """Give the module factors for so many members; they are trained where their weight is.

        They multiply into those of a module that has some, for one member.
        """

    @abstractmethod
    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of the plain module that one member is, without those of the modules inside.

        What there is one row of serves all members.
        """

    def own_weights(self) -> None:
        """Make the weights that the factors give each member's own, in place; the factors are then gone."""
        members = self.ensemble_size
        with torch.no_grad():
            tensors = [self.member_tensors(member) for member in range(members)]
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters(recurse=False)}
        own = [name for name in tensors[0] if name not in self.member_parameters]
        for name in own:
            rows = torch.stack([of_member[name].detach() for of_member in tensors])
            setattr(self, name, nn.Parameter(rows, trained[name]))
        kept = [name for name in self.member_parameters if name not in self.added_parameters]
        self._forget_factors()
        for name in self.added_parameters:
            self.register_parameter(name, None)
        self.member_parameters = (*own, *kept)

    def remove_factors(self) -> None:
        """Become the plain module that the first member is, in place."""
        with torch.no_grad():
            tensors = self.member_tensors(0)
        trained = {name: parameter.requires_grad for name, parameter in self.named_parameters(recurse=False)}
        self.become_plain()
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor, trained[name]))

    def share_all(self) -> None:
        """Become the plain module that its base weights are, for all members, in place.

        Parameters stay the same objects, also where members had each a row of one: an optimizer that has them goes on
        with them.
        """
        for name in set(self.member_parameters) - set(self.added_parameters):
            if (rows := getattr(self, name)) is not None:
                rows.data = rows.data[0].clone()
        self.become_plain()

    def become_plain(self) -> None:
        """Have the class of the plain module, and nothing that it does not have but the numbers of its parameters."""
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
        """Whether only members share its base weights, which are the plain module's: `share_all` makes it that one."""
        blocks = (getattr(self, name, None) for name in self.factor_parameters)
        is_cut = any(factor is not None and factor.ndim == 4 for factor in blocks)
        return not (is_cut or self.owns_weights or self.shares_across or getattr(self, "mix", None) is not None)

    @property
    def has_fixed_factors(self) -> bool:
        """Whether it has factors that stay as they are."""
        return any(name.endswith(FIXED) for name in self._buffers)

    @property
    def owns_weights(self) -> bool:
        """Whether its weights are the members' own, and not shared."""
        return any(name.endswith("weight") for name in self.member_parameters)

    def factor(self, name: str) -> Tensor | None:
        """A factor as it is used: what is learned of it, times what is fixed of it."""
        learned, fixed = getattr(self, name, None), getattr(self, f"{name}{FIXED}", None)
        if fixed is None or learned is None:
            return learned if fixed is None else fixed
        uses = max(len(learned), len(fixed))
        return spread(learned, uses) * spread(fixed, uses)

    def one_term(self, prefix: str = "") -> Pair | None:
        """The pair r and s, where the weight of each use is ``W ∘ (s rᵀ)`` and no more; otherwise None.

        Args:
            prefix: of the names of its factors, where it has those of several weights.
        """
        r, s = self.factor(f"{prefix}r"), self.factor(f"{prefix}s")
        if r is None or s is None or r.ndim > 2 or self.has_further_terms(prefix):
            return None
        return r, s

    def has_further_terms(self, prefix: str = "") -> bool:
        """Whether there are terms beside r and s."""
        return any(self._pair(terms, prefix) is not None for terms in _TERMS)

    def extra_repr(self) -> str:
        """The options, as `repr` shows them."""
        plain = super().extra_repr()
        way = "" if self.way == "auto" else f", way={self.way!r}"
        own = ", own weights" * self.owns_weights
        return f"{plain}{', ' if plain else ''}ensemble_size={self.ensemble_size}{own}{way}"

    def folds_weights(self, x: Tensor, weight: Tensor, uses: int) -> bool:
        """Whether it folds factors into a base weight, for an input that is divided among so many uses."""
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
        """The weight of each use ``[use, *shape]``, or of one member ``[1, *shape]``.

        Args:
            weight: a base weight, or the members' own ``[member, *shape]``.
            member: which one; None: of all uses, as many as there are rows of what has most.
            prefix: of the names of the factors.
            groups: of a grouped convolution.
            transposed: as of `expand_weight`.
            mix: of templates.
        """
        if self.owns_weights:
            return weight if member is None else row_of(weight, member)
        pairs = [self._pair(terms, prefix) for terms in _TERMS]
        first = [self.factor(f"{prefix}{name}") for name in "rs"]
        parts = [*first, mix, *(one for pair in pairs for one in pair or ())]
        uses = max((len(part) for part in parts if part is not None), default=1)

        def chosen(part: Tensor | None) -> Any:
            if part is None:
                return None
            return spread(part, uses) if member is None else row_of(part, member)

        r, s, mix = (chosen(part) for part in parts[:3])
        more, added = (None if pair is None else (chosen(pair[0]), chosen(pair[1])) for pair in pairs)
        return expand_weight(weight, r, s, groups, transposed, mix, more, added)

    def fix_factors(self, ensemble_size: int, shapes: Shapes, init: FactorInit, like: Tensor) -> None:
        """Have factors that stay as they are, by their names: signs made from new seeds, or masks of the inputs.

        Args:
            ensemble_size: members.
            shapes: of one member's factors; "s" or "..._s" is the one of the outputs.
            init: whose kind is one of the fixed ones.
            like: gives dtype and device.
        """
        if init.kind == "mask":
            for name, shape in shapes.items():
                is_s = name.endswith("s")
                whole = (ensemble_size, *shape)
                mask = torch.ones(whole) if is_s else _masks(whole, init.mask_scale)
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
        """Have the further terms of factors, by their names, before the first term is given.

        Multiplied ones multiply into the factors of a module that has some, for one member. Added ones are trained also
        where the weight is frozen: then they are all that is learned of it (LoRA).

        Args:
            ensemble_size: members.
            shapes: of one member's factors; "r" or "..._r" is the one of the inputs.
            init: how they start.
            terms: how many there are, of which form.
            weight: what they are factors of, as a use has it.
        """
        if not terms.further:
            return
        for name, shape in shapes.items():
            is_s, whole = name.endswith("s"), (ensemble_size, terms.further, *shape)
            if terms.is_additive:
                drawn = init.draw_added(whole, weight, is_s)
            else:
                drawn = init.draw_further(whole, weight, is_s)
                if (before := getattr(self, name, None)) is not None:
                    drawn = drawn * before.detach().unsqueeze(1)
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
        """Load, and make what is fixed and in no state, where the weight now is: signs of the seeds, and ones."""
        super()._load_from_state_dict(*args)
        like = next((parameter for parameter in self._parameters.values() if parameter is not None), None)
        for name in self._non_persistent_buffers_set:
            fixed = self._buffers.get(name)
            if name.endswith(FIXED) and fixed is not None:
                factor, place = name.removesuffix(FIXED), fixed if like is None else like
                if "sign_seeds" in self._buffers:
                    made = signs_from(self.sign_seeds, factor, fixed.shape[1:], self.sign_probability, place)
                else:
                    made = torch.ones(fixed.shape, dtype=place.dtype, device=place.device)
                self._buffers[name] = made


def set_way(network: nn.Module, way: Way) -> None:
    """Have all rank-1 layers of a network compute in one way, in place; predictions follow.

    Args:
        network: or a part of it, such as one layer.
        way: "auto", "activations" or "weights", see `Way`.

    Raises:
        InputError: an unknown way, a network without rank-1 layers.

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


def factor_parameter(
    weight: Tensor,
    ensemble_size: int,
    shape: Sequence[int],
    init: FactorInit,
    before: Tensor | None = None,
    groups: Sequence[int] = (),
) -> nn.Parameter:
    """A new factor ``[member, *shape]`` of a weight, with its dtype and device, trained where it is.

    Args:
        weight: what it is a factor of.
        ensemble_size: members.
        shape: of one member's.
        init: how it starts.
        before: a factor that it multiplies into, of one member, ``[1, *shape]`` or what broadcasts to it.
        groups: sizes of groups of channels that start alike, in order; none where each starts by itself.
    """
    drawn = init.draw((ensemble_size, len(groups)) if groups else (ensemble_size, *shape), weight)
    if groups:
        drawn = drawn.repeat_interleave(torch.tensor(groups, device=drawn.device), 1)
    return nn.Parameter(drawn if before is None else drawn * before.detach(), weight.requires_grad)


def check_ensemble_size(ensemble_size: int) -> None:
    """Raise an InputError unless there is at least one member."""
    if not isinstance(ensemble_size, Integral) or ensemble_size < 1:
        raise InputError(f"ensemble_size must be a whole number of at least 1, and is {ensemble_size!r}")


def row_of(rows: Tensor, member: int) -> Tensor:
    """The row ``[1, ...]`` of a member; what there is one row of serves all."""
    first = member if len(rows) > 1 else 0
    return rows[first : first + 1]


def _masks(shape: tuple[int, ...], scale: float) -> Tensor:
    """Masks of the inputs of each member; where a weight is cut into blocks, the same for all blocks of outputs."""
    members, *blocks, inputs = shape
    masks = overlapping_masks(members, prod(blocks[1:]) * inputs, scale)
    return masks.reshape(members, *[1] * len(blocks[:1]), *blocks[1:], inputs).expand(shape).clone()


def own_parameter(shared: nn.Parameter, ensemble_size: int) -> nn.Parameter:
    """A parameter ``[member, ...]`` that starts as so many copies of a shared one ``[...]``."""
    copies = shared.detach().expand(ensemble_size, *shared.shape).clone()
    return nn.Parameter(copies, shared.requires_grad)
