"""Rank-1 operations with factors folded into one weight per member, with little memory saved for the backward pass.

Folding makes one pass over the weights per member; multiplying activations makes two passes over the activations.
Only the input, the base weight and the factors are saved for the backward pass, which expands the members' weights
again. With the gradient ``G_m`` of the weight ``W ∘ (s_m r_mᵀ)`` of member m, the gradients are
``∂W = Σ_m G_m ∘ (s_m r_mᵀ)``, ``∂s_m = (G_m ∘ W) r_m`` and ``∂r_m = (G_m ∘ W)ᵀ s_m``, summed over the kernel axes.
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
        operation: the linear operation.
        x: the input ``[member * batch, ...]``.
        weight: the base weight.
        r: the input factors ``[member, in]``.
        s: the output factors ``[member, out]``.
        bias: ``[member, out]`` or None.

    Returns:
        ``[member * batch, ...]``, in the dtype of `x`.
    """
    return operation.as_rows(_Folded.apply(x, weight, r, s, bias, operation), x)


def has_autocast(device_type: str) -> bool:
    """Whether a device type supports autocast.

    `torch.amp.is_autocast_available` is not used because torch.compile cannot trace it. The import that could mark it
    as traceable takes a second.
    """
    return device_type != "meta"


def without_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that disables autocast, if the device supports it."""
    if has_autocast(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class _Folded(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, r: Tensor, s: Tensor, bias: Tensor | None, operation: Operation) -> Tensor:
        expanded = expand_weight(weight, r, s, operation.groups, operation.transposed).to(x.dtype)
        member_bias = None if bias is None else bias.to(x.dtype)
        # as_rows is called outside: autograd forbids in-place changes, such as activations, of views returned here.
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
        x_grad, expanded_grad = operation.gradients(grad, divide(x, len(r)), expanded, wanted)
        factor_grads: tuple[Tensor | None, ...] = (None,) * 3
        if expanded_grad is not None:
            factor_grads = _factor_gradients(expanded_grad.to(weight.dtype), weight, r, s, operation)
        bias_grad = None
        if needs_bias:
            channel = operation.channel_axis if operation.channel_axis < 0 else operation.channel_axis + 1
            bias_grad = grad.movedim(channel, 1).flatten(2).sum(2, dtype=ctx.bias_dtype)
        return None if x_grad is None else x_grad.flatten(0, 1), *factor_grads, bias_grad, None


def _factor_gradients(
    gradient: Tensor, weight: Tensor, r: Tensor, s: Tensor, operation: Operation
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of W, r and s from the gradient ``[member, *weight.shape]`` of the members' weights."""
    first, second = (r, s) if operation.transposed else (s, r)
    groups = operation.groups
    channel_pairs = (gradient * weight).flatten(3).sum(3) if weight.ndim > 2 else gradient * weight
    by_group = channel_pairs.unflatten(1, (groups, -1))  # [member, group, first / groups, second / groups]
    first_grad = torch.einsum("mgij,mgj->mgi", by_group, second.unflatten(1, (groups, -1))).flatten(1)
    second_grad = torch.einsum("mgij,mgi->mgj", by_group, first.unflatten(1, (groups, -1))).flatten(1)
    weight_grad = (gradient * outer_factor(first, second, groups, weight.ndim - 2)).sum(0)
    return (weight_grad, first_grad, second_grad) if operation.transposed else (weight_grad, second_grad, first_grad)
