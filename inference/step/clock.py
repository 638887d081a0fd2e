"""The step counter of a training, on the device. A step reads changing values from tensors, never on the host."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayes_share.errors import InputError

_MAX_STEPS = 10**8


def precision_on(device: torch.device) -> torch.dtype:
    """Return the dtype of learning rates on a device. On CUDA the fused optimizers read them as float32."""
    return torch.float32 if device.type == "cuda" else torch.float64


@dataclass(eq=False)
class Clock:
    """The number of steps taken, which the step itself advances, and tables of values that depend on it.

    So a step that is recorded once and replayed, as in a CUDA graph, reads new values each time. `steps` must not be
    read within a step, because it makes the host wait for the device.

    Args:
        taken: number of steps taken.
        num_steps: number of steps of the whole training.
    """

    taken: Int64[Tensor, ""]
    num_steps: int

    @classmethod
    def start(cls, num_steps: int, device: torch.device) -> "Clock":
        """Return a clock at step 0.

        Raises:
            InputError: if there are too many steps for a table.
        """
        if num_steps > _MAX_STEPS:
            raise InputError(
                f"a training has at most {_MAX_STEPS:,} steps, not {num_steps:,}: use fewer epochs or larger batches"
            )
        return cls(torch.zeros((), dtype=torch.int64, device=device), num_steps)

    @property
    def steps(self) -> int:
        """The number of steps taken, on the host."""
        return int(self.taken)

    def table(self, at: Callable[[int, int], float]) -> Float[Tensor, "step"]:
        """Tabulate a function of the step, counted from 0, and of the number of steps, on the device of the clock."""
        count = max(1, self.num_steps)
        values = np.fromiter((at(step, self.num_steps) for step in range(count)), np.float64, count)
        return torch.from_numpy(values).to(self.taken.device, precision_on(self.taken.device))

    def read(self, table: Float[Tensor, "step"]) -> Float[Tensor, ""]:
        """Return a table's entry for the current step, or the last entry after the last step."""
        place = self.taken.clamp(max=len(table) - 1)
        return table.index_select(0, place.view(1)).view(())

    def advance(self) -> None:
        """Count a step, on the device."""
        self.taken.add_(1)

    def set(self, steps: int) -> None:
        """Set the number of steps, from a checkpoint."""
        self.taken.fill_(steps)
