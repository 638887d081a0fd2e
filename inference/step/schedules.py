"""The learning rate over a run."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bayes_share.errors import InputError, unknown

ScheduleName = Literal["cosine", "step", "constant"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate over a run, as a multiple of its base value.

    Args:
        name: ``"cosine"``: half a cosine from 1 to 0; ``"step"``: multiplied by `gamma` at each milestone;
            ``"constant"``.
        warmup: the part of all steps in which the rate first climbs linearly from near 0.
        milestones: of ``"step"``, as parts of all steps.
        gamma: of ``"step"``.
    """

    name: ScheduleName = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in get_args(ScheduleName):
            raise unknown("schedule", self.name, get_args(ScheduleName))
        if not self.gamma >= 0:
            raise InputError(f"gamma multiplies the learning rate and must not be negative, and is {self.gamma}")
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise InputError(f"milestones are parts of all steps, between 0 and 1, and are {list(self.milestones)}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is a part of all steps, from 0 to below 1, and is {self.warmup}")

    def at(self, step: int, num_steps: int) -> float:
        """The multiple at a step, which counts from 0.

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
