"""The history of a training: a record of figures for each epoch."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

COLUMNS = (
    "epoch",
    "loss",
    "train_accuracy",
    "train_nll",
    "validation_accuracy",
    "validation_nll",
    "learning_rate",
    "seconds",
)
"""What is noted of each epoch, where there is such a thing."""

OF_MEMBERS = ("validation_disagreement", "validation_kl")
"""What is noted besides, where there are several members and the target of an example is one class."""

ALWAYS = tuple(name for name in COLUMNS if "accuracy" not in name and "validation" not in name)
"""What is noted of every epoch, whatever the likelihood, and with or without validation data."""

Line = dict[str, int | float]


class History:
    """The lines of a training so far. Figures that are still on a device are read when somebody asks for a line."""

    def __init__(self, lines: Sequence[Line] = ()) -> None:
        self._lines = list(lines)
        self._waiting: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """How many epochs there were."""
        return len(self._lines) + len(self._waiting)

    def add(self, line: dict[str, int | float | Tensor]) -> None:
        """Note the figures of an epoch; an accuracy that is NaN is none, and is left out."""
        self._waiting.append(line)

    def lines(self) -> list[Line]:
        """A record for each epoch, of plain numbers."""
        figures = [value.double() for line in self._waiting for value in line.values() if isinstance(value, Tensor)]
        read = iter(torch.stack(figures).tolist() if figures else ())
        for line in self._waiting:
            plain = {name: next(read) if isinstance(value, Tensor) else value for name, value in line.items()}
            self._lines.append({name: value for name, value in plain.items() if name in ALWAYS or value == value})
        self._waiting.clear()
        return self._lines


def check_history(history: Sequence[object], required: Collection[str] = COLUMNS) -> None:
    """See whether something that was read is a history: of the epochs 0, 1, ... in order, of finite numbers.

    Args:
        history: a record for each epoch.
        required: what each must have.

    Raises:
        ValueError: it is none; names the first fault.
    """
    for epoch, record in enumerate(history):
        if not isinstance(record, dict) or not set(record) >= set(required):
            raise ValueError(f"record {epoch} must have {', '.join(required)}")
        for name, value in record.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} of epoch {epoch} must be a finite number")
        if record["epoch"] != epoch:
            raise ValueError(f"the epochs must be counted from 0, and record {epoch} is of {record['epoch']}")
        parts = [record.get(name, 0) for name in ("validation_accuracy", "validation_disagreement")]
        if record["seconds"] < 0 or not all(0 <= part <= 1 for part in parts):
            raise ValueError(f"seconds of epoch {epoch} must be at least 0, and accuracies from 0 to 1")
