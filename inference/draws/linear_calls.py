"""The calls of linear layers during a run: record them, capture their tensors, and perturb their outputs.

The hooks are global. Hooks on the layers of an ensemble would change how it computes, and its members may be computed
by modules that are created during the call.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from bayes_share.tensors.trees import Tree

Run = Callable[[Tree], Tensor]
"""Runs one or several networks on a batch."""

Note = Callable[[nn.Linear, Tensor, Tensor], Tensor | None]
"""Receives the layer, its inputs and its outputs; returns new outputs, or None to keep them."""


@dataclass(frozen=True, eq=False)
class LinearCall:
    """One call of a linear layer.

    Args:
        name: name of the layer in its network, the outermost module that is called.
        network: index of the network call that it belongs to.
        shape: shape of its outputs.
        dtype: dtype of its outputs.
        largest: largest absolute value of its outputs.
    """

    name: str
    network: int
    shape: torch.Size
    dtype: torch.dtype
    largest: float


@dataclass(frozen=True, eq=False)
class Caught:
    """The outputs of a run, with copies of the inputs and outputs of some linear-layer calls, in call order.

    Args:
        outputs: the outputs of the run.
        inputs: ``[row, feature]`` of each call.
        products: ``[row, output]`` of each call, before anything was added.
        disturbed: the same after the addition.
        calls: total number of linear-layer calls.
    """

    outputs: Tensor
    inputs: list[Tensor]
    products: list[Tensor]
    disturbed: list[Tensor]
    calls: int


def list_calls(run: Run, x: Tree) -> tuple[Tensor, list[LinearCall]]:
    """Return the outputs of a run, and all linear-layer calls in order."""
    calls: list[LinearCall] = []
    running: list[tuple[nn.Module, int]] = []
    numbers = count()

    @cache
    def names(network: nn.Module) -> dict[nn.Module, str]:
        return {module: name for name, module in network.named_modules()}

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        running.append((module, next(numbers)))

    def leave(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        running.pop()

    def note(layer: nn.Linear, inputs: Tensor, outputs: Tensor) -> None:
        network, number = next(each for each in running if layer in names(each[0]))
        largest = float(outputs.abs().max()) if outputs.numel() else 0.0
        calls.append(LinearCall(names(network)[layer], number, outputs.shape, outputs.dtype, largest))

    entering = register_module_forward_pre_hook(enter)
    try:
        with _hook_on_linear_layers(note):
            leaving = register_module_forward_hook(leave, always_call=True)  # runs after the hook that needs `running`
            try:
                return run(x), calls
            finally:
                leaving.remove()
    finally:
        entering.remove()


def catch(run: Run, x: Tree, numbers: Sequence[int], added: Sequence[Tensor] = ()) -> Caught:
    """Run, and copy inputs and outputs of linear-layer calls, because the network may change them in place afterwards.

    Args:
        run: is called once.
        x: a batch.
        numbers: indices of the calls to copy, in the order of `list_calls`.
        added: tensors to add to the outputs of these calls. If empty, or where the shape differs, nothing is added.
    """
    places = {number: place for place, number in enumerate(numbers)}
    caught: list[tuple[Tensor, Tensor, Tensor]] = []
    passed = count()

    def note(layer: nn.Linear, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        place = places.get(next(passed))
        if place is None:
            return None
        is_disturbed = bool(added) and added[place].shape == outputs.shape
        disturbed = outputs + added[place].to(outputs) if is_disturbed else None
        kept = outputs.clone()
        caught.append((inputs.clone(), kept, kept if disturbed is None else disturbed.clone()))
        return disturbed

    with _hook_on_linear_layers(note):
        outputs = run(x)
    rows = [[tensor.reshape(-1, tensor.shape[-1]) for tensor in each] for each in zip(*caught, strict=True)]
    inputs, products, disturbed = rows or ([], [], [])
    return Caught(outputs, inputs, products, disturbed, next(passed))


@contextmanager
def _hook_on_linear_layers(note: Note) -> Iterator[None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> Tensor | None:
        if isinstance(module, nn.Linear) and isinstance(outputs, Tensor):
            return note(module, (*args, *kwargs.values())[0], outputs)
        return None

    handle = register_module_forward_hook(hook, with_kwargs=True)  # type: ignore[arg-type]  # what a hook returns
    try:
        yield
    finally:
        handle.remove()
