"""Rank-1 operations with the factors folded into a weight for each member, saving as little for backward as torch.

Folding passes over the weights once for each member, where multiplying activations passes twice over the activations.
Saved for backward are the input and the base weight alone; the members' weights are expanded again. From the weight
gradient ``G_m`` of member m follow the gradients of what made its weight ``W ∘ (s_m r_mᵀ)``:
``∂W = Σ_m G_m ∘ (s_m r_mᵀ)``, ``∂s_m = (G_m ∘ W) r_m`` and ``∂r_m = (G_m ∘ W)ᵀ s_m``, sums over the kernel implied.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from bayes_share.layers.expansion import expand_weight, outer_factor
from bayes_share.layers.operations import Operation
from bayes_share.layers.rows import divide


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
    return operation.as_rows(_Folded.apply(x, weight, r, s, bias, operation), x)


def has_autocast(device_type: str) -> bool:
    """Whether there is autocast on devices of a type.

    The compiler cannot look into `torch.amp.is_autocast_available`, and to mark that for it takes a second to import.
    """
    return device_type != "meta"


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Compute in the dtypes that are there, on devices that know another way."""
    if has_autocast(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class _Folded(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None, operation: Operation) -> Tensor:
        expanded = expand_weight(weight, r, s, operation.groups, operation.transposed).to(x.dtype)
        member_bias = None if bias is None else bias.to(x.dtype)
        # Not as rows: autograd lets nothing, such as an activation in place, change a view that a function returns.
        return operation.apply_members(divide(x, len(r)), expanded, member_bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, r, s, bias, ctx.operation = inputs
        ctx.save_for_backward(x, weight, r, s)
        ctx.bias_dtype = None if bias is None else bias.dtype

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with without_autocast(grad.device):
            return _Folded._gradients(ctx, grad)

    @staticmethod
    def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r, s = ctx.saved_tensors
        operation: Operation = ctx.operation
        needs_x, *needs_weight, needs_bias, _ = ctx.needs_input_grad
        expanded = expand_weight(weight, r, s, operation.groups, operation.transposed).to(x.dtype)
        wanted = (needs_x, any(needs_weight))
        of_x, of_expanded = operation.gradients(grad, divide(x, len(r)), expanded, wanted)
        of_factors: tuple[Tensor | None, ...] = (None,) * 3
        if of_expanded is not None:
            of_factors = _factor_gradients(of_expanded.to(weight.dtype), weight, r, s, operation)
        of_bias = None
        if needs_bias:
            channel = operation.channel_axis if operation.channel_axis < 0 else operation.channel_axis + 1
            of_bias = grad.movedim(channel, 1).flatten(2).sum(2, dtype=ctx.bias_dtype)
        return None if of_x is None else of_x.flatten(0, 1), *of_factors, of_bias, None


def _factor_gradients(
    gradient: Tensor, weight: Tensor, r: Tensor, s: Tensor, operation: Operation
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of W, r and s from those of the members' weights, ``[member, *weight.shape]``."""
    first, second = (r, s) if operation.transposed else (s, r)
    groups = operation.groups
    pairs = (gradient * weight).flatten(3).sum(3) if weight.ndim > 2 else gradient * weight
    by_group = pairs.unflatten(1, (groups, -1))  # [member, group, first / groups, second / groups]
    of_first = torch.einsum("mgij,mgj->mgi", by_group, second.unflatten(1, (groups, -1))).flatten(1)
    of_second = torch.einsum("mgij,mgi->mgj", by_group, first.unflatten(1, (groups, -1))).flatten(1)
    of_weight = (gradient * outer_factor(first, second, groups, weight.ndim - 2)).sum(0)
    return (of_weight, of_first, of_second) if operation.transposed else (of_weight, of_second, of_first)
