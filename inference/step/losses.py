"""Losses and states that became NaN or infinite, from which training cannot go on."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bayes_share.errors import RunError
from bayes_share.inference.algorithm import StepInfo

_CHECK_EVERY = 50  # steps between looks at the loss where a look makes the CPU wait for the device


class Losses:
    """The losses of a training: looked at as they come, and on a device that works by itself a few at a time.

    Args:
        num_steps: how many steps there will be, for messages.
        device: where they are computed.
    """

    def __init__(self, num_steps: int, device: torch.device) -> None:
        self._num_steps = num_steps
        self._every = 1 if device.type == "cpu" else _CHECK_EVERY
        self._unchecked: list[tuple[int, StepInfo]] = []

    def add(self, step: int, info: StepInfo) -> None:
        """Take in what a step reported.

        Raises:
            RunError: what `check` does.
        """
        self._unchecked.append((step, info))
        if len(self._unchecked) == self._every:
            self.check()

    def check(self) -> None:
        """Look at the losses since the last look.

        Raises:
            RunError: one is NaN or infinite; names the step and the learning rate.
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
    """Raise a RunError where a number in a state is not finite.

    Args:
        state: what an algorithm's state gives as its `state_dict`.
        step: how many steps were taken.
        num_steps: of how many.
    """
    tensors = (leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor) and leaf.is_floating_point())
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise RunError(
            f"after step {step} of {num_steps} some parameters are NaN or infinite: "
            f"try a lower learning rate, a warm-up or clipping"
        )
