"""Rank-1 operations with the factors folded into a weight for each member, saving as little for backward as torch.

Folding passes over the weights once for each member, where multiplying activations passes twice over the activations.
Saved for backward are the input and the base weight alone; the members' weights are expanded again. From the weight
gradient ``G_m`` of member m follow the gradients of what made its weight ``W ∘ (s_m r_mᵀ)``:
``∂W = Σ_m G_m ∘ (s_m r_mᵀ)``, ``∂s_m = (G_m ∘ W) r_m`` and ``∂r_m = (G_m ∘ W)ᵀ s_m``, sums over the kernel implied.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bayes_share.layers.factors import expand_weight
from bayes_share.layers.rows import divide


class Operation(Protocol):
    """A linear operation on one member's rows, and its gradients."""

    groups: int
    transposed: bool

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The operation on all members: `x` ``[member, batch, ...]``, `weight` and `bias` ``[member, ...]``."""

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Any, Any]:
        """The gradients of `x` and of each member's weight, where `wanted`."""


@dataclass(frozen=True)
class Linear:
    """``x Wᵀ + bias`` on the last axis."""

    groups: int = 1
    transposed: bool = False

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One batched product for all members."""
        rows = x.flatten(1, -2)
        y = torch.bmm(rows, weight.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, weight.mT)
        return y.view(*x.shape[:-1], -1)

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Any, Any]:
        """Two batched products."""
        rows, grad_rows = x.flatten(1, -2), grad.flatten(1, -2)
        grad_x = torch.bmm(grad_rows, weight).view(x.shape) if wanted[0] else None
        return grad_x, torch.bmm(grad_rows.mT, rows) if wanted[1] else None


@dataclass(frozen=True)
class Convolution:
    """A convolution of any dimension, transposed or not, on an input that is padded already where it has to be."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = (0,)
    groups: int = 1

    def apply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """One convolution for each member."""
        return torch.stack(
            [
                torch.convolution(
                    part,
                    weight[member],
                    None if bias is None else bias[member],
                    self.stride,
                    self.padding,
                    self.dilation,
                    self.transposed,
                    self.output_padding,
                    self.groups,
                )
                for member, part in enumerate(x)
            ]
        )

    def gradients(self, grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool]) -> tuple[Any, Any]:
        """Torch's own gradients, one member after the other."""
        of_members = [
            torch.ops.aten.convolution_backward(
                grad[member],
                part,
                weight[member],
                None,
                self.stride,
                self.padding,
                self.dilation,
                self.transposed,
                self.output_padding,
                self.groups,
                [*wanted, False],
            )
            for member, part in enumerate(x)
        ]
        return tuple(
            torch.stack([gradients[which] for gradients in of_members]) if wanted[which] else None for which in (0, 1)
        )


def apply_folded(operation: Operation, x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None) -> Tensor:
    """Apply each member's own weight to its rows.

    Args:
        operation: what the weight does.
        x: ``[member * batch, ...]``.
        weight: the base weight.
        r: ``[member, in]``.
        s: ``[member, out]``.
        bias: ``[member, out]`` or None.

    Returns:
        ``[member * batch, ...]``, in the dtype of `x`.
    """
    return _Folded.apply(x, weight, r, s, bias, operation)


class _Folded(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None, operation: Operation) -> Tensor:
        expanded = expand_weight(weight, r, s, operation.groups, operation.transposed).to(x.dtype)
        member_bias = None if bias is None else bias.to(x.dtype)
        return operation.apply(divide(x, len(r)), expanded, member_bias).flatten(0, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, r, s, bias, ctx.operation = inputs
        ctx.save_for_backward(x, weight, r, s)
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r, s = ctx.saved_tensors
        operation: Operation = ctx.operation
        need_x, need_weight, need_r, need_s, need_bias, _ = ctx.needs_input_grad
        parts, grads = divide(x, len(r)), divide(grad, len(r))
        need_any_weight = need_weight or need_r or need_s
        expanded = expand_weight(weight, r, s, operation.groups, operation.transposed).to(x.dtype)
        grad_parts, of_expanded = operation.gradients(grads, parts, expanded, (need_x, need_any_weight))
        grad_bias = None
        if need_bias:
            channel = -1 if isinstance(operation, Linear) else 2
            grad_bias = grads.movedim(channel, 1).flatten(2).sum(2, dtype=ctx.bias_dtype)
        of_weight = of_r = of_s = None
        if need_any_weight:
            of_weight, of_r, of_s = _factor_gradients(of_expanded, weight, r, s, operation)
        return None if grad_parts is None else grad_parts.flatten(0, 1), of_weight, of_r, of_s, grad_bias, None


def _factor_gradients(
    gradient: Tensor, weight: Tensor, r: Tensor, s: Tensor, operation: Operation
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of W, r and s from those ``[member, *weight.shape]`` of the members' weights."""
    first, second = (r, s) if operation.transposed else (s, r)
    groups, size = operation.groups, weight.shape[0] // operation.groups
    gradient = gradient.to(weight.dtype)
    # [member, first, second / groups]: what the members' weights give per pair of channels.
    pairs = (gradient * weight).flatten(3).sum(3) if weight.ndim > 2 else gradient * weight
    by_group = pairs.unflatten(1, (groups, size))
    of_first = torch.einsum("mgij,mgj->mgi", by_group, second.unflatten(1, (groups, -1))).flatten(1)
    of_second = torch.einsum("mgij,mgi->mgj", by_group, first.unflatten(1, (groups, size))).flatten(1)
    rows = second.unflatten(1, (groups, 1, -1)).expand(-1, -1, size, -1).flatten(1, 2)
    factor = (first.unsqueeze(2) * rows).view(*pairs.shape, *[1] * (weight.ndim - 2))
    of_weight = (gradient * factor).sum(0)
    return (of_weight, of_first, of_second) if operation.transposed else (of_weight, of_second, of_first)
