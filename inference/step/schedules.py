"""Learning-rate schedules."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bayes_share.errors import InputError, unknown

ScheduleName = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule, as a multiple of the base rate.

    Args:
        name: ``"cosine"``: half a cosine from 1 to 0; ``"step"``: multiplied by `gamma` at each milestone;
            ``"constant"``.
        warmup: fraction of all steps in which the rate first rises linearly from near 0.
        milestones: milestones of ``"step"``, as fractions of all steps.
        gamma: factor of ``"step"``.
    """

    name: ScheduleName = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in get_args(ScheduleName):
            raise unknown("schedule", self.name, get_args(ScheduleName))
        if not self.gamma >= 0:
            raise InputError(f"gamma must not be negative, and is {self.gamma}")
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise InputError(
                f"milestones must be fractions of all steps, between 0 and 1, and are {list(self.milestones)}"
            )
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup must be a fraction of all steps, at least 0 and below 1, and is {self.warmup}")

    def at(self, step: int, num_steps: int) -> float:
        """Return the multiple at a step, counted from 0.

        >>> [round(Schedule("cosine").at(step, 4), 3) for step in range(4)]
        [1.0, 0.854, 0.5, 0.146]
        """
        warmup_steps = math.ceil(self.warmup * num_steps)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if self.name == "constant":
            return 1.0
        if self.name == "step":
            return self.gamma ** sum(step >= milestone * num_steps for milestone in self.milestones)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, num_steps - warmup_steps)))
