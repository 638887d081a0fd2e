"""Outputs for a single row without a batch axis, which a network removes, for example by ``squeeze()``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from bayes_share.errors import InputError
from bayes_share.sharing.arguments import Arguments
from bayes_share.sharing.batch_dependence import run_example, without_hooks


class LostBatchAxis:
    """Restores the batch axis of outputs that a network computes for a single row.

    A network that ends in ``squeeze()`` returns ``[]`` or ``[class]`` for one row, which looks like a scalar for the
    whole batch or like another batch. The outputs for the row repeated once show which outputs have lost their axis.
    They are computed when outputs of these shapes are first seen.
    """

    def __init__(self) -> None:
        self._lost: dict[tuple[Any, ...], list[bool]] = {}

    def restored(self, outputs: Any, net: nn.Module, given: Arguments, run: Callable[..., Any]) -> Any:
        """Return the outputs with the batch axes that were lost.

        While the network is compiled, exported, traced or transformed, the outputs are returned unchanged.

        Args:
            outputs: The outputs for one call of the network.
            net: The network. Its modes, buffers and hooks are unchanged.
            given: The arguments of the call.
            run: Runs the network on arguments.
        """
        # First, since comparing the batch size would fix it in an exported program.
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or given.batch != 1:  # type: ignore[attr-defined]
            return outputs
        leaves, structure = tree_flatten(outputs)
        if not any(_may_be_lost(leaf) for leaf in leaves):
            return outputs
        shapes = tuple(leaf.shape if isinstance(leaf, Tensor) else None for leaf in leaves)
        if shapes not in self._lost:
            tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            if any(torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in tensors):
                return outputs
            self._lost[shapes] = _lost(shapes, net, given, run)
        lost = self._lost[shapes]
        return tree_unflatten(
            [leaf[None] if is_lost else leaf for leaf, is_lost in zip(leaves, lost, strict=True)], structure
        )


def _lost(shapes: tuple[Any, ...], net: nn.Module, given: Arguments, run: Callable[..., Any]) -> list[bool]:
    """Return for each output whether its batch axis is lost: whether it has one for two rows."""
    try:
        with without_hooks(net):
            twice = tree_leaves(run_example(net, given.changed(lambda tensor: torch.cat([tensor, tensor])), run))
    except InputError:  # the batch size is fixed
        twice = []
    if len(twice) != len(shapes):
        return [False] * len(shapes)
    return [
        shape is not None and isinstance(leaf, Tensor) and leaf.shape == (2, *shape)
        for shape, leaf in zip(shapes, twice, strict=True)
    ]


def _may_be_lost(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.ndim == 0 or leaf.shape[0] != 1)
