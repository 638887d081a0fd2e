"""The base class of rank-1 layers, which combine an operation, a base weight and factors for each use."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.expansion import expand_weight
from bayes_share.layers.factor_parameters import factor_parameter, row_of
from bayes_share.layers.factored import Factored, with_terms
from bayes_share.layers.factors import ONE_TERM, FactorInit, FactorTerms
from bayes_share.layers.folded import apply_folded, has_autocast, without_autocast
from bayes_share.layers.operations import Operation
from bayes_share.layers.rows import divide, scale, scale_shift, spread


class Rank1Layer(Factored):
    """A linear operation whose base `weight` is shared by all its uses, each with its own factors r and s and bias.

    Use u applies the operation with the weight ``W ∘ (s_u r_uᵀ)`` (BatchEnsemble, arXiv 2002.06715, eq. 1). The layer
    either forms this weight or multiplies the input by r and the output by s (eq. 5), depending on `way`.

    Uses are the members of an ensemble, the layers of a network that share one `weight`, and the blocks of a weight
    that share one base block. Instead of one base weight there can be several templates, of which each use has its own
    linear combination. Members can have further terms, multiplied or added (`FactorTerms`), fixed signs as factors, or
    their own weights.

    A concrete class derives from this class and from the torch module of the same operation, and implements
    `operation`. It keeps torch's options and parameter names.

    Args:
        args: the positional arguments of the torch module.
        ensemble_size: the number of members.
        init: the initialisation of the factors.
        way: "auto", "activations" or "weights", see `Way`; `set_way` changes it.
        factor_rank: the number of terms of each member, see `FactorTerms`.
        factor_form: "multiplied" or "additive", see `FactorTerms`.
        options: the keyword arguments of the torch module.

    Shapes:

    - one term: `weight` as in torch, `r` ``[member, in]``, `s` and `bias` ``[member, out]``;
    - further multiplied terms: `more_r` ``[member, term, in]``, `more_s` ``[member, term, out]``;
    - added terms: `add_s` ``[member, term, first]`` for the first axis of the weight, `add_r` ``[member, term, ...]``
      for all other axes;
    - blocks: `weight` ``[out / out_block, in / in_block, ...]``, `r` ``[member, out_block, in_block, in / in_block]``,
      `s` ``[member, out_block, in_block, out / out_block]``;
    - templates: `weight` ``[template, ...]``, `mix` ``[member, template]``, which is None otherwise;
    - layers that share a weight: possibly a single scale per use, `s` ``[member, 1]``, without r, or neither r nor s;
    - members' own weights: `weight` ``[member, ...]``.

    The first axis of the input is member-major, ``[member * batch, ...]``. Factors with more rows (a multiple of the
    members, up to one per input row) can be passed through `torch.func.functional_call`.

    Raises:
        InputError: if `ensemble_size` or `factor_rank` is below 1, or `way` or `factor_form` is unknown.
    """

    factor_parameters: ClassVar[tuple[str, ...]] = with_terms("r", "s")
    member_parameters = ("bias", "mix")
    added_parameters: ClassVar[tuple[str, ...]] = (*factor_parameters, "mix")

    weight: Any  # torch's classes declare weight and bias with different types
    bias: Any
    r: nn.Parameter | None
    s: nn.Parameter | None
    mix: nn.Parameter | None

    @abstractmethod
    def operation(self, x: Tensor, *args: Any) -> Operation:
        """Return the plain operation for an input that `padded` has processed.

        Args:
            x: the input.
            args: the other arguments of the layer's call.
        """

    @abstractmethod
    def channels(self) -> tuple[int, int]:
        """Return the numbers of input and output channels."""

    def padded(self, x: Tensor) -> Tensor:
        """Apply padding to the input that the operation does not apply itself."""
        return x

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        """Apply to each row the weight of its member. Input and output are ``[member * batch, ...]``."""
        operation = self.operation(x, *args)
        if self.mix is None and (pair := self.one_term()) is not None:
            return apply_rank1(operation, x, self.weight, *pair, self.bias, self.folds_weights, self.padded)
        return apply_expanded(operation, x, self.weight, self.expanded_weight, self.bias, self.padded)

    def add_factors(self, ensemble_size: int, init: FactorInit, terms: FactorTerms = ONE_TERM) -> None:
        """Add factors for `ensemble_size` members, multiplied by existing factors for one member.

        The factors are trained if the weight is. If the layer has an attribute ``input_groups`` with the sizes of
        groups of input channels, the factors r start with equal values within each group, such as the inputs that
        encode one column of a table.
        """
        r, s, mix = (getattr(self, name, None) for name in ("r", "s", "mix"))
        in_channels, out_channels = self.channels()
        r_shape = (in_channels,) if r is None else tuple(r.shape[1:])
        s_shape = (out_channels,) if r is None or s is None else tuple(s.shape[1:])
        if terms.is_additive:
            self.set_factors(r, s, mix)
            first, *others = self.base_shape()
            self.set_terms(ensemble_size, {"r": tuple(others), "s": (first,)}, init, terms, self.weight)
            return
        shapes = {"r": r_shape, "s": s_shape}
        self.set_terms(ensemble_size, shapes, init, terms, self.weight)
        if init.is_fixed:
            self.set_factors(r, s, mix)
            self.fix_factors(ensemble_size, shapes, init, self.weight)
            return
        self.set_factors(
            factor_parameter(
                self.weight, ensemble_size, r_shape, init.for_factor("r"), r, getattr(self, "input_groups", ())
            ),
            factor_parameter(self.weight, ensemble_size, s_shape, init.for_factor("s"), s),
            mix,
        )

    def set_factors(
        self, r: nn.Parameter | None = None, s: nn.Parameter | None = None, mix: nn.Parameter | None = None
    ) -> None:
        """Register the factors of the first term, replacing existing ones."""
        for name, parameter in (("r", r), ("s", s), ("mix", mix)):
            self.register_parameter(name, parameter)

    def base_shape(self) -> tuple[int, ...]:
        """Return the shape of one use's weight, which is the weight shape of the plain layer."""
        first, second, *kernel = self.weight.shape[0 if self.mix is None and not self.owns_weights else 1 :]
        outs, ins = self.blocks()
        firsts, seconds = (ins, outs) if getattr(self, "transposed", False) else (outs, ins)
        return first * firsts, second * seconds, *kernel

    def blocks(self) -> tuple[int, int]:
        """Return the numbers of blocks of the weight along its output and its input channels."""
        r = getattr(self, "r", None)
        return (1, 1) if r is None or r.ndim == 2 else (r.shape[1], r.shape[2])

    def fan_in(self) -> int:
        """Return the number of inputs that each output sums over."""
        return self.channels()[0] // getattr(self, "groups", 1) * math.prod(self.base_shape()[2:])

    def expanded_weight(self, member: int | None = None) -> Tensor:
        """Compute the weight of each member ``[member, *shape]``, or of each factor row if there are more.

        Args:
            member: compute only this member's weight, ``[1, *shape]``.
        """
        groups, transposed = getattr(self, "groups", 1), getattr(self, "transposed", False)
        return self.expand(self.weight, member, "", groups, transposed, getattr(self, "mix", None))

    def member_tensors(self, member: int) -> dict[str, Tensor]:
        """Return the parameters of the plain layer that is equivalent to one member."""
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
    """Expand the weight of each use and apply it to the use's rows, in the dtype of autocast if it is enabled.

    Args:
        operation: the linear operation.
        x: the input ``[row, ...]``, divided in order among the uses.
        base: the base weight, which determines the dtype without autocast.
        expand: computes the weights ``[use, ...]``.
        bias: ``[member, out]``, or None. The number of uses is a multiple of the members, or vice versa.
        pad: a function applied to the input before the operation.

    Returns:
        The output ``[row, ...]``.
    """
    x = _in_compute_dtype(x, base)
    with without_autocast(x.device):
        return _apply_uses(operation, pad(x), expand(), bias)


def _apply_uses(operation: Operation, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply the weight of each use ``[use, ...]`` to its rows of a padded input."""
    uses = len(weight) if bias is None else max(len(weight), len(bias))
    weight = spread(weight, uses).to(x.dtype)
    bias = None if bias is None else spread(bias, uses).to(x.dtype)
    if uses == 1:  # saves one pass over the activations, forward and backward
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
    """Apply to each row the weight ``W ∘ (s rᵀ)`` of its use, in the dtype of autocast if it is enabled.

    Args:
        operation: the linear operation.
        x: the input ``[row, ...]``, divided in order among the uses of each factor.
        weight: the base weight.
        r: the input factors ``[use, in]``.
        s: the output factors ``[use, out]``; s and the bias may have other numbers of uses than r.
        bias: ``[use, out]``, ``[1, out]`` for all uses, or None.
        folds: decides from the input, the weight and the number of uses whether to fold the factors into the weight.
        pad: a function applied to the input before the operation.

    Returns:
        The output ``[row, ...]``.
    """
    uses = len(r)
    x = _in_compute_dtype(x, weight)
    if bias is not None and len(bias) == 1:
        bias = bias.expand(uses, -1)
    have_equal_uses = len(s) == uses and (bias is None or len(bias) == uses)
    with without_autocast(x.device):
        if have_equal_uses and folds(x, weight, uses):
            if uses == 1:  # saves the expanded weight for the backward pass, but needs no custom autograd function
                expanded = expand_weight(weight, r, s, operation.groups, operation.transposed)
                return _apply_uses(operation, pad(x), expanded, bias)
            return apply_folded(operation, pad(x), weight, r, s, bias)
        axis = operation.channel_axis
        y = operation.apply(pad(scale(x, r, axis)), weight.to(x.dtype))
        return scale_shift(y, s, bias, axis)


def _in_compute_dtype(x: Tensor, weight: Tensor) -> Tensor:
    """Cast the input to the dtype of autocast if it is enabled; otherwise check that it has the weight's dtype."""
    device = x.device.type
    takes_autocast = x.is_floating_point() and x.dtype != torch.float64 and has_autocast(device)
    if takes_autocast and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    if x.dtype != weight.dtype:
        raise InputError(f"the input is {x.dtype} and the weight {weight.dtype}: convert one of them, or use autocast")
    return x
