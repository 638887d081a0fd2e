"""Detection of losses and states that became NaN or infinite."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bayes_share.errors import RunError
from bayes_share.inference.algorithm import StepInfo

_CHECK_EVERY = 50  # steps, if a check makes the CPU wait for the device


class Losses:
    """Checks the losses of a training: each at once on a CPU, several at a time on other devices.

    Args:
        num_steps: total number of steps, for messages.
        device: the device of the losses.
    """

    def __init__(self, num_steps: int, device: torch.device) -> None:
        self._num_steps = num_steps
        self._every = 1 if device.type == "cpu" else _CHECK_EVERY
        self._unchecked: list[tuple[int, StepInfo]] = []

    def add(self, step: int, info: StepInfo) -> None:
        """Add the diagnostics of a step.

        Raises:
            RunError: as in `check`.
        """
        self._unchecked.append((step, info))
        if len(self._unchecked) == self._every:
            self.check()

    def check(self) -> None:
        """Check the losses added since the last check.

        Raises:
            RunError: if a loss is NaN or infinite; names the step and the learning rate.
        """
        if not self._unchecked or bool(torch.stack([info.loss for _, info in self._unchecked]).isfinite().all()):
            self._unchecked.clear()
            return
        step, info = next((step, info) for step, info in self._unchecked if not bool(info.loss.isfinite()))
        raise RunError(
            f"the loss is {float(info.loss)} at step {step} of {self._num_steps}, "
            f"with learning rate {float(info.learning_rate):g}: try a lower one, a warm-up or clipping"
        )


def check_finite(state: dict[str, Any], step: int, num_steps: int) -> None:
    """Raise RunError if a value in a state is NaN or infinite.

    Args:
        state: the state dict of an algorithm's state.
        step: number of steps taken.
        num_steps: total number of steps.
    """
    tensors = (leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise RunError(
            f"after step {step} of {num_steps} some parameters are NaN or infinite: "
            f"try a lower learning rate, a warm-up or clipping"
        )
