"""What all rank-1 layers have in common: an operation, a base weight, and factors for each use."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.expansion import expand_weight
from bayes_share.layers.factored import Factored, factor_parameter, row_of, with_terms
from bayes_share.layers.factors import ONE_TERM, FactorInit, FactorTerms
from bayes_share.layers.folded import apply_folded, has_autocast, without_autocast
from bayes_share.layers.operations import Operation
from bayes_share.layers.rows import divide, scale, scale_shift, spread


class Rank1Layer(Factored):
    """An operation whose base `weight` is shared by its uses, each with two factors and a bias of its own.

    Use u computes what the plain operation would with the weight ``W ∘ (s_u r_uᵀ)`` (BatchEnsemble, arXiv 2002.06715,
    eq. 1): either by forming it, or by multiplying the input by r and the output by s (eq. 5), as its `way` says.

    The uses are the members of an ensemble; the layers of a network, where several hold the same `weight`; and the
    blocks that a weight is cut into, all of which are one base block, each with factors of its own. In place of one
    base weight there may be templates, of which each use takes a mixture. Members may have further terms, multiplied or
    added (`FactorTerms`), fixed signs for factors, or a weight of their own.

    A final class derives from this one and from the torch module of the same operation, and gives the operation. So it
    keeps torch's options and names of parameters.

    Args:
        args: what the torch module takes.
        ensemble_size: members.
        init: how the factors start.
        way: how it computes: "auto", "activations" or "weights", see `Way`; `set_way` changes it.
        factor_rank: terms of each member's part of the weight, see `FactorTerms`.
        factor_form: "multiplied" or "additive", see `FactorTerms`.
        options: what the torch module takes.

    Shapes: `weight` as in torch; `r` ``[member, in]``; `s` and `bias` ``[member, out]``; further terms `more_r`
    ``[member, term, in]`` and `more_s` ``[member, term, out]``; of added ones `add_s` is ``[member, term, first]`` for
    the first axis of the weight, and `add_r` ``[member, term, ...]`` for all others. Cut into blocks, `weight` is
    ``[out / out_block, in / in_block, ...]``, `r` ``[member, out_block, in_block, in / in_block]`` and `s` ``[member,
    out_block, in_block, out / out_block]``. With templates, `weight` is ``[template, ...]`` and `mix` ``[member,
    template]``, otherwise None. A layer that shares its weight may have one number for each use, `s` ``[member, 1]``
    without r, or no factors: then both are None. A weight of the members' own is ``[member, ...]``.

    The input's first axis is member-major, ``[member * batch, ...]``. Factors with more rows (a whole multiple of the
    members, up to one for each row of the input) may be handed in through `torch.func.functional_call`.

    Raises:
        InputError: an ensemble of fewer than one member, an unknown way.
    """

    factor_parameters: ClassVar[tuple[str, ...]] = with_terms("r", "s")
    member_parameters = ("bias", "mix")
    added_parameters: ClassVar[tuple[str, ...]] = (*factor_parameters, "mix")

    weight: Any  # torch's own classes declare it, and the bias, each in its own way
    bias: Any
    r: nn.Parameter | None
    s: nn.Parameter | None
    mix: nn.Parameter | None

    @abstractmethod
    def operation(self, x: Tensor, *args: Any) -> Operation:
        """The plain operation on an input that was `padded`.

        Args:
            x: the input.
            args: what else the layer was called with.
        """

    @abstractmethod
    def channels(self) -> tuple[int, int]:
        """The numbers of input and of output channels."""

    def padded(self, x: Tensor) -> Tensor:
        """The input with what the operation needs around it and does not add itself."""
        return x

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        """Apply each row's own weight to it: input and output ``[member * batch, ...]``."""
        operation = self.operation(x, *args)
        if self.mix is None and (pair := self.one_term()) is not None:
            return apply_rank1(operation, x, self.weight, *pair, self.bias, self.folds_weights, self.padded)
        return apply_expanded(operation, x, self.weight, self.expanded_weight, self.bias, self.padded)

    def add_factors(self, ensemble_size: int, init: FactorInit, terms: FactorTerms = ONE_TERM) -> None:
        """Give the layer factors for so many members, which multiply into those that it has for one.

        They are trained where the weight is. A layer with an attribute ``input_groups``, the sizes of groups of its
        input channels, has factors r that start alike within a group, as those of the numbers that one column became.
        """
        r, s, mix = (getattr(self, name, None) for name in ("r", "s", "mix"))
        in_channels, out_channels = self.channels()
        of_r = (in_channels,) if r is None else tuple(r.shape[1:])
        of_s = (out_channels,) if r is None or s is None else tuple(s.shape[1:])
        if terms.is_additive:
            self.set_factors(r, s, mix)
            first, *others = self.base_shape()
            self.set_terms(ensemble_size, {"r": tuple(others), "s": (first,)}, init, terms, self.weight)
            return
        shapes = {"r": of_r, "s": of_s}
        self.set_terms(ensemble_size, shapes, init, terms, self.weight)
        if init.is_fixed:
            self.set_factors(r, s, mix)
            self.fix_factors(ensemble_size, shapes, init, self.weight)
            return
        self.set_factors(
            factor_parameter(
                self.weight, ensemble_size, of_r, init.for_factor("r"), r, getattr(self, "input_groups", ())
            ),
            factor_parameter(self.weight, ensemble_size, of_s, init.for_factor("s"), s),
            mix,
        )

    def set_factors(
        self, r: nn.Parameter | None = None, s: nn.Parameter | None = None, mix: nn.Parameter | None = None
    ) -> None:
        """Have these factors of the first term and no others."""
        for name, parameter in (("r", r), ("s", s), ("mix", mix)):
            self.register_parameter(name, parameter)

    def base_shape(self) -> tuple[int, ...]:
        """The shape of the weight of one use, as the plain layer has it."""
        first, second, *kernel = self.weight.shape[0 if self.mix is None and not self.owns_weights else 1 :]
        outs, ins = self.blocks()
        firsts, seconds = (ins, outs) if getattr(self, "transposed", False) else (outs, ins)
        return first * firsts, second * seconds, *kernel

    def blocks(self) -> tuple[int, int]:
        """Into how many blocks the weight is cut along its output and along its input channels."""
        r = getattr(self, "r", None)
        return (1, 1) if r is None or r.ndim == 2 else (r.shape[1], r.shape[2])

    def fan_in(self) -> int:
        """How many inputs each output sums over."""
        return self.channels()[0] // getattr(self, "groups", 1) * math.prod(self.base_shape()[2:])

    def expanded_weight(self, member: int | None = None) -> Tensor:
        """The weight of each member ``[member, *shape]``, or of each row of the factors where they have more.

        Args:
            member: of this one alone, ``[1, *shape]``.
        """
        groups, transposed = getattr(self, "groups", 1), getattr(self, "transposed", False)
        return self.expand(self.weight, member, "", groups, transposed, getattr(self, "mix", None))

    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of the plain layer that one member is."""
        tensors = {"weight": self.expanded_weight(member)[0]}
        return tensors if self.bias is None else {**tensors, "bias": row_of(self.bias, member)[0]}


def apply_expanded(
    operation: Operation,
    x: Tensor,
    base: Tensor,
    expand: Callable[[], Tensor],
    bias: Tensor | None,
    pad: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Apply each use's weight to its rows, whatever it is made of, in autocast's dtype.

    Args:
        operation: what the weight does.
        x: ``[row, ...]``, divided in order among the uses.
        base: what the weights are made of, in their dtype.
        expand: gives the weights ``[use, ...]``.
        bias: ``[member, out]``, of as many members as there are uses or a part of them, or None.
        pad: what is done to the input before the operation.

    Returns:
        ``[row, ...]``.
    """
    x = _in_compute_dtype(x, base)
    with without_autocast(x.device):
        return _of_uses(operation, pad(x), expand(), bias)


def _of_uses(operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply the weight of each use ``[use, ...]`` to its rows of an input that was padded."""
    uses = len(weight) if bias is None else max(len(weight), len(bias))
    weight = spread(weight, uses).to(x.dtype)
    bias = None if bias is None else spread(bias, uses).to(x.dtype)
    if uses == 1:  # a pass over the activations less, forward and backward
        return operation.apply(x, weight.squeeze(0), None if bias is None else bias.squeeze(0))
    return operation.as_rows(operation.apply_members(divide(x, uses), weight, bias), x)


def apply_rank1(
    operation: Operation,
    x: Tensor,
    weight: Tensor,
    r: Tensor,
    s: Tensor,
    bias: Tensor | None,
    folds: Callable[[Tensor, Tensor, int], bool],
    pad: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Apply each row's own weight ``W ∘ (s rᵀ)`` to it, in autocast's dtype.

    Args:
        operation: what the weight does.
        x: ``[row, ...]``, divided in order among the uses of each factor.
        weight: the base weight.
        r: ``[use, in]``.
        s: ``[use, out]``; it and the bias may have another number of uses.
        bias: ``[use, out]``, ``[1, out]`` of all uses, or None.
        folds: whether the factors are folded into the weight, of an input, the weight and the number of uses.
        pad: what is done to the input before the operation.

    Returns:
        ``[row, ...]``.
    """
    uses = len(r)
    x = _in_compute_dtype(x, weight)
    if bias is not None and len(bias) == 1:
        bias = bias.expand(uses, -1)
    are_alike = len(s) == uses and (bias is None or len(bias) == uses)
    with without_autocast(x.device):
        if are_alike and folds(x, weight, uses):
            if uses == 1:  # saves one weight more, and spares a function of our own
                expanded = expand_weight(weight, r, s, operation.groups, operation.transposed)
                return _of_uses(operation, pad(x), expanded, bias)
            return apply_folded(operation, pad(x), weight, r, s, bias)
        axis = operation.channel_axis
        y = operation.apply(pad(scale(x, r, axis)), weight.to(x.dtype))
        return scale_shift(y, s, bias, axis)


def _in_compute_dtype(x: Tensor, weight: Tensor) -> Tensor:
    """The input in autocast's dtype, where it is in force; otherwise it has to have the weight's."""
    device = x.device.type
    takes_autocast = x.is_floating_point() and x.dtype != torch.float64 and has_autocast(device)
    if takes_autocast and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    if x.dtype != weight.dtype:
        raise InputError(f"the input is {x.dtype} and the weight {weight.dtype}: convert one of them, or use autocast")
    return x
