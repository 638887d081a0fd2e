"""Check the inputs of batches for NaN without waiting for the device in every step."""

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.targets import check_finite_examples
from bayes_share.tensors.trees import Tree, is_finite, tensors_of

_CHECK_EVERY = 50  # batches, if a check makes the CPU wait for the device


class FiniteInputs:
    """Checks inputs for NaN and infinity: each batch at once on a CPU, several batches at a time on other devices.

    Args:
        device: the device of the inputs.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_host = device.type == "cpu"
        self._unchecked: list[tuple[str, Tensor]] = []

    def add(self, name: str, inputs: Tree) -> None:
        """Add the inputs of a batch.

        Args:
            name: name of the batch, for messages.
            inputs: the inputs, on the device.

        Raises:
            InputError: as in `check`. On a CPU, the message also names the examples.
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
        """Check the batches added since the last check.

        Raises:
            InputError: if a batch contains NaN or infinity; names the first one.
        """
        if self._unchecked and not bool(torch.stack([is_fine for _, is_fine in self._unchecked]).all()):
            name = next(name for name, is_fine in self._unchecked if not bool(is_fine))
            raise InputError(f"the inputs of {name} contain NaN or infinity")
        self._unchecked.clear()
