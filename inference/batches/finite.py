"""A look for NaN at the inputs of batches as they come, which makes no device wait."""

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.targets import check_finite_examples
from bayes_share.tensors.trees import Tree, is_finite, tensors_of

_CHECK_EVERY = 50  # batches between looks where a look makes the CPU wait for the device


class FiniteInputs:
    """Inputs of batches: looked at as they come, and on a device that works by itself some batches at a time.

    Args:
        device: where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_host = device.type == "cpu"
        self._unchecked: list[tuple[str, Tensor]] = []

    def add(self, name: str, inputs: Tree) -> None:
        """Take in the inputs of a batch.

        Args:
            name: of the batch, for messages.
            inputs: on the device.

        Raises:
            InputError: what `check` does; where they are looked at one by one, it says which examples.
        """
        if self._is_host:
            for leaf in tensors_of(inputs):
                if leaf.is_floating_point() or leaf.is_complex():
                    check_finite_examples(f"inputs of {name}", leaf)
            return
        self._unchecked.append((name, is_finite(inputs)))
        if len(self._unchecked) == _CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Look at the batches since the last look.

        Raises:
            InputError: one holds NaN or infinity; names the first such batch.
        """
        if self._unchecked and not bool(torch.stack([is_fine for _, is_fine in self._unchecked]).all()):
            name = next(name for name, is_fine in self._unchecked if not bool(is_fine))
            raise InputError(f"the inputs of {name} hold NaN or infinity")
        self._unchecked.clear()
