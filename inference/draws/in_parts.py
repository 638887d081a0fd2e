"""Prediction on parts of the inputs, limited by memory or divided among processes."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bayes_share.errors import InputError, is_out_of_memory
from bayes_share.inference.step.ranks import ALONE, Ranks
from bayes_share.inference.step.same_data import check_same
from bayes_share.tensors.trees import Tree, num_examples, rows, split

AT_A_TIME = {"cuda": 4000}
"""The default number of inputs per forward pass, by device type. A GPU needs many to be fully used."""

_OTHERWISE = 500

_UINT8 = ("unsigned char", "Byte")
"""Names of uint8 in torch's messages."""

_OF_UINT8 = (
    "the network cannot compute with uint8 images: normalise them as in training, for example with "
    "transform=data.normalise"
)

T = TypeVar("T")


class InParts:
    """Runs functions on the inputs, part by part.

    If a part does not fit into the memory of the device, it is halved, and so are the following parts.

    Args:
        batch_size: number of inputs in a part. None: the default of the device.
        device: the device on which the functions run.
        ranks: processes that all run the same functions in the same order. The parts are divided among them.

    Raises:
        InputError: if `batch_size` is below 1, a network is called with uint8 images that are not normalised, or the
            inputs differ between processes.

    >>> InParts(2, torch.device("cpu"))(len, torch.zeros(5, 3))
    [2, 2, 1]
    """

    def __init__(self, batch_size: int | None, device: torch.device, ranks: Ranks = ALONE) -> None:
        check_at_a_time(batch_size)
        self.batch_size = AT_A_TIME.get(device.type, _OTHERWISE) if batch_size is None else batch_size
        self._fits, self._ranks = self.batch_size, ranks

    def __call__(self, run: Callable[[Tree], T], x: Tree) -> list[T]:
        """Return the function's result for each part, in the order of the inputs."""
        parts = split(x, self.batch_size)
        # All processes compute before they exchange results, because an exchange waits for the other processes.
        computed = [self._run(run, part) if self._ranks.deals(number) else None for number, part in enumerate(parts)]
        check_same(self._ranks, "the inputs", num_examples(x), rows(x, slice(1)))
        return [result for number, own in enumerate(computed) for result in self._ranks.told(number, own)]

    def _run(self, run: Callable[[Tree], T], part: Tree) -> list[T]:
        found: list[T] = []
        at, count = 0, num_examples(part)
        while at < count or not found:
            size = min(self._fits, count - at)
            try:
                found.append(run(rows(part, slice(at, at + size))))
            except (MemoryError, RuntimeError) as error:
                if is_out_of_memory(error) and size > 1:
                    self._fits = size // 2
                    continue
                if any(name in str(error) for name in _UINT8) and _is_of_uint8(part):
                    raise InputError(_OF_UINT8) from error
                raise
            else:
                at += size
        return found


def _is_of_uint8(x: Tree) -> bool:
    return any(leaf.dtype == torch.uint8 for leaf in tree_leaves(x) if isinstance(leaf, Tensor))


def check_at_a_time(batch_size: int | None) -> None:
    """Raise InputError if the batch size is below 1."""
    if batch_size is not None and batch_size < 1:
        raise InputError(f"the batch size of a prediction must be at least 1, not {batch_size}")
