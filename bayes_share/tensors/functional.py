"""Functional calls of a module with correct gradients, even if the module recomputes parts in the backward pass."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


def call_under(
    module: nn.Module,
    values: Mapping[str, Tensor],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Call a module with the given parameters and buffers instead of its own, without changing it.

    `torch.func.functional_call` restores the module's own tensors before the backward pass runs. If the network
    recomputes parts of its forward pass in the backward pass (`torch.utils.checkpoint`, reentrant or not), it then
    computes gradients of its own tensors. This function also sets the given values during the backward pass. Buffers
    then have their values from the beginning of the call, so that a recomputation does not update running statistics
    twice.

    Gradients flow to the values, to the module's own parameters without a value, and to the arguments. Only first
    derivatives are supported; for second derivatives use `torch.func` transforms, under which this function is
    `functional_call`.

    Args:
        module: the module to call.
        values: the values by name. The value of a tied parameter must be given under its name in each module that has
            it. A module that is registered several times has its first name.
        args: positional arguments: trees of tensors and other objects.
        kwargs: keyword arguments, likewise.

    Returns:
        The module's output.
    """
    if not torch.is_grad_enabled() or _is_traced():
        return torch.func.functional_call(module, dict(values), tuple(args), dict(kwargs), tie_weights=False)
    own = {
        name: tensor
        for name, tensor in _each_tensor(module)
        if name not in values and isinstance(tensor, nn.Parameter) and tensor.requires_grad
    }
    leaves, spec = tree_flatten((tuple(args), dict(kwargs)))
    call = _Call(module, {**own, **values}, leaves, spec)
    tensors = call.differentiable()
    if not tensors:
        return torch.func.functional_call(module, dict(values), tuple(args), dict(kwargs), tie_weights=False)
    recorded = list(_Recorded.apply(call, *tensors))
    assert call.output_spec is not None
    outputs = [recorded.pop(0) if _has_gradient(leaf) else leaf for leaf in call.outputs]
    call.outputs = []
    return tree_unflatten(outputs, call.output_spec)


@dataclass
class _Call:
    """A functional call: the module, its tensors, the arguments and the outputs."""

    module: nn.Module
    values: dict[str, Tensor]
    args: list[Any]
    spec: TreeSpec
    outputs: tuple[Any, ...] | list[Any] = ()
    output_spec: TreeSpec | None = None

    def differentiable(self) -> list[Tensor]:
        """Return the tensors that require a gradient, each once."""
        unique = {id(tensor): tensor for tensor in (*self.values.values(), *self.args) if _has_gradient(tensor)}
        return list(unique.values())

    def run(self, leaves: Mapping[int, Tensor]) -> list[Any]:
        """Call the module with `leaves` in place of the `differentiable` tensors, and return the flattened outputs."""
        values = {name: leaves.get(id(value), value) for name, value in self.values.items()}
        args, kwargs = tree_unflatten([leaves.get(id(arg), arg) for arg in self.args], self.spec)
        outputs = torch.func.functional_call(self.module, values, args, kwargs, tie_weights=False)
        self.outputs, self.output_spec = tree_flatten(outputs)
        return list(self.outputs)


class _Recorded(torch.autograd.Function):
    """A call with a separate autograd graph, whose backward pass runs with the same tensors set in the module."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the call and return the outputs that require a gradient."""
        leaves = {id(tensor): tensor.detach().requires_grad_() for tensor in tensors}
        parameters = {name: leaves.get(id(value), value) for name, value in call.values.items()}
        # The backward pass runs with these parameters, and with the current values of the buffers.
        buffers = {
            name: buffer.clone() for name, buffer in _each_tensor(call.module) if not isinstance(buffer, nn.Parameter)
        }
        given = {name: value.clone() for name, value in parameters.items() if name in buffers}
        with torch.enable_grad():
            outputs = call.run(leaves)
        ctx.module, ctx.in_place = call.module, {**buffers, **parameters, **given}
        ctx.leaves, ctx.recorded = list(leaves.values()), [leaf for leaf in outputs if _has_gradient(leaf)]
        ctx.set_materialize_grads(False)
        return tuple(output.detach() for output in ctx.recorded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Compute the gradients of the call's tensors."""
        if ctx.recorded is None:
            raise RuntimeError("the backward pass ran a second time: call the first one with retain_graph=True")
        keep = torch._C._autograd._get_current_graph_task_keep_graph()
        pairs = [(output, grad) for output, grad in zip(ctx.recorded, gradients, strict=True) if grad is not None]
        if pairs:
            # `torch.autograd.grad` is not possible, as reentrant checkpoints do not support it.
            torch.func.functional_call(
                _Backward(ctx.module),
                {f"module.{name}": tensor for name, tensor in ctx.in_place.items()},
                (pairs, keep),
                tie_weights=False,
            )
        leaf_gradients = [leaf.grad for leaf in ctx.leaves]
        for leaf in ctx.leaves:
            leaf.grad = None
        if not keep:
            ctx.module = ctx.in_place = ctx.leaves = ctx.recorded = None
        return None, *leaf_gradients


class _Backward(nn.Module):
    """A module whose forward call runs a backward pass, so that `functional_call` can set tensors of its submodule."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pairs: list[tuple[Tensor, Tensor]], keep: bool) -> None:
        outputs, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(outputs, gradients, retain_graph=keep)


def _each_tensor(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over parameters and buffers by name, only once for a module that is registered several times.

    `functional_call` would not restore a tensor correctly that is set under two names of one module.
    """
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_traced() -> bool:
    """Whether the call is compiled, traced or transformed, which does not support a custom autograd function."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._are_functorch_transforms_active()
    )
