"""Calls of a module under other parameters and buffers, whose gradients are right even if it recomputes in backward."""

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
    """Call a module with other parameters and buffers in the place of its own, and leave it as it is.

    The same as `torch.func.functional_call`, which puts the module's own tensors back before the backward pass runs. A
    network that runs parts of its forward pass again in the backward pass (`torch.utils.checkpoint`, reentrant or not)
    then computes gradients of its own tensors. Here the values are in place in the backward pass as well, and buffers
    are as they were when the call began, so that a recomputation updates no running statistics a second time.

    Gradients pass to the values, to the module's own parameters that have no value, and to the arguments. They can be
    taken once: second derivatives need `torch.func` transforms, under which this is `functional_call`.

    Args:
        module: to call.
        values: by name; a tied parameter has to be given under its name in each of the modules that have it, where a
            module that stands in several places has its first name.
        args: positional arguments; trees of tensors and anything else.
        kwargs: keyword arguments, likewise.

    Returns:
        What the module returns.
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
    """A call: of what, under which tensors, with which arguments, and what came out."""

    module: nn.Module
    values: dict[str, Tensor]
    args: list[Any]
    spec: TreeSpec
    outputs: tuple[Any, ...] | list[Any] = ()
    output_spec: TreeSpec | None = None

    def differentiable(self) -> list[Tensor]:
        """The tensors that gradients pass to, each of them once."""
        there = {id(tensor): tensor for tensor in (*self.values.values(), *self.args) if _has_gradient(tensor)}
        return list(there.values())

    def run(self, leaves: Mapping[int, Tensor]) -> list[Any]:
        """Call the module with leaves of a graph of its own in the place of `differentiable`; the outputs, flat."""
        values = {name: leaves.get(id(value), value) for name, value in self.values.items()}
        args, kwargs = tree_unflatten([leaves.get(id(arg), arg) for arg in self.args], self.spec)
        outputs = torch.func.functional_call(self.module, values, args, kwargs, tie_weights=False)
        self.outputs, self.output_spec = tree_flatten(outputs)
        return list(self.outputs)


class _Recorded(torch.autograd.Function):
    """A call with a graph of its own, whose backward pass runs with the same tensors in place."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the call; gives those of its outputs that have a gradient."""
        leaves = {id(tensor): tensor.detach().requires_grad_() for tensor in tensors}
        parameters = {name: leaves.get(id(value), value) for name, value in call.values.items()}
        # What is in place in backward: the same parameters, and the buffers as they are now.
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
        """The gradients of the call's tensors."""
        if ctx.recorded is None:
            raise RuntimeError("the backward pass ran a second time: call the first one with retain_graph=True")
        keep = torch._C._autograd._get_current_graph_task_keep_graph()
        pairs = [(output, grad) for output, grad in zip(ctx.recorded, gradients, strict=True) if grad is not None]
        if pairs:
            # Not `torch.autograd.grad`, which reentrant checkpoints do not allow.
            torch.func.functional_call(
                _Backward(ctx.module),
                {f"module.{name}": tensor for name, tensor in ctx.in_place.items()},
                (pairs, keep),
                tie_weights=False,
            )
        found = [leaf.grad for leaf in ctx.leaves]
        for leaf in ctx.leaves:
            leaf.grad = None
        if not keep:
            ctx.module = ctx.in_place = ctx.leaves = ctx.recorded = None
        return None, *found


class _Backward(nn.Module):
    """A backward pass as a module that holds another, so that `functional_call` can put tensors into that one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pairs: list[tuple[Tensor, Tensor]], keep: bool) -> None:
        outputs, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(outputs, gradients, retain_graph=keep)


def _each_tensor(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, those of a module that stands in several places once.

    Put in place under two names of one module, a tensor would be put back wrongly.
    """
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor


def _has_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_traced() -> bool:
    """Whether the call is compiled, traced or transformed, where no function of our own belongs into the graph."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch._C._are_functorch_transforms_active()
    )
