"""How far a training is, on the device: what changes from step to step is read from tensors, and never by the host."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayes_share.errors import InputError

_MOST_STEPS = 10**8


def precision_on(device: torch.device) -> torch.dtype:
    """The dtype of rates on a device: on CUDA the fused optimizers read them as float32."""
    return torch.float32 if device.type == "cuda" else torch.float64


@dataclass(eq=False)
class Clock:
    """The number of steps taken, which the step itself advances, and tables of what depends on it.

    A step that is recorded once and replayed, as in a CUDA graph, reads other values each time. Nothing in a step may
    ask for `steps`, which makes the host wait; between steps that is harmless.

    Args:
        taken: steps taken.
        num_steps: of the whole training.
    """

    taken: Int64[Tensor, ""]
    num_steps: int

    @classmethod
    def start(cls, num_steps: int, device: torch.device) -> "Clock":
        """A clock at 0.

        Raises:
            InputError: more steps than could be taken, or have a table.
        """
        if num_steps > _MOST_STEPS:
            raise InputError(
                f"a training has at most {_MOST_STEPS:,} steps, not {num_steps:,}: take fewer epochs or larger batches"
            )
        return cls(torch.zeros((), dtype=torch.int64, device=device), num_steps)

    @property
    def steps(self) -> int:
        """The number of steps taken, on the host."""
        return int(self.taken)

    def table(self, at: Callable[[int, int], float]) -> Float[Tensor, "step"]:
        """A function of the step, which counts from 0, and of the number of steps, as a table beside the clock."""
        count = max(1, self.num_steps)
        values = np.fromiter((at(step, self.num_steps) for step in range(count)), np.float64, count)
        return torch.from_numpy(values).to(self.taken.device, precision_on(self.taken.device))

    def read(self, table: Float[Tensor, "step"]) -> Float[Tensor, ""]:
        """The entry of the step that is being taken; after the last step, that of the last."""
        place = self.taken.clamp(max=len(table) - 1)
        return table.index_select(0, place.view(1)).view(())

    def advance(self) -> None:
        """Count a step, on the device."""
        self.taken.add_(1)

    def set(self, steps: int) -> None:
        """Take over the number of steps that a checkpoint has."""
        self.taken.fill_(steps)
