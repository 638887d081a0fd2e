"""The history of a training: a record for each epoch."""

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
"""The columns of the history. Accuracies and validation scores may be missing."""

OF_MEMBERS = ("validation_disagreement", "validation_kl")
"""Additional columns for several members if the target of an example is one class."""

ALWAYS = tuple(name for name in COLUMNS if "accuracy" not in name and "validation" not in name)
"""The columns of every epoch, for any likelihood and with or without validation data."""

Line = dict[str, int | float]

_SHOWN = (
    ("validation_accuracy", "accuracy", ".1%"),
    ("validation_nll", "NLL", ".3f"),
    ("validation_disagreement", "disagreement", ".1%"),
    ("validation_kl", "KL", ".3f"),
)


class History:
    """The records of a training so far. Values on a device are copied to the host when `lines` is called."""

    def __init__(self, lines: Sequence[Line] = ()) -> None:
        self._lines = list(lines)
        self._waiting: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self._lines) + len(self._waiting)

    def add(self, line: dict[str, int | float | Tensor]) -> None:
        """Add the record of an epoch. An accuracy that is NaN is left out."""
        self._waiting.append(line)

    def lines(self) -> list[Line]:
        """Return a record of plain numbers for each epoch."""
        figures = [value.double() for line in self._waiting for value in line.values() if isinstance(value, Tensor)]
        read = iter(torch.stack(figures).tolist() if figures else ())
        for line in self._waiting:
            plain = {name: next(read) if isinstance(value, Tensor) else value for name, value in line.items()}
            self._lines.append({name: value for name, value in plain.items() if name in ALWAYS or value == value})
        self._waiting.clear()
        return self._lines


def in_words(line: Line) -> str:
    """Return the loss and the validation scores of an epoch as text, for a progress bar.

    >>> in_words({"epoch": 4, "loss": 0.5, "validation_accuracy": 0.9, "validation_nll": 0.25})
    'epoch 5: loss 0.500, validation accuracy 90.0%, NLL 0.250'
    """
    scores = ", ".join(f"{title} {line[name]:{form}}" for name, title, form in _SHOWN if name in line)
    return f"epoch {line['epoch'] + 1:.0f}: loss {line['loss']:.3f}" + (f", validation {scores}" if scores else "")


def check_history(history: Sequence[object], required: Collection[str] = COLUMNS) -> None:
    """Check that a loaded history has consecutive epochs from 0 and finite values.

    Args:
        history: a record for each epoch.
        required: the names that each record must have.

    Raises:
        ValueError: if it is not a valid history; names the first error.
    """
    for epoch, record in enumerate(history):
        if not isinstance(record, dict) or not set(record) >= set(required):
            raise ValueError(f"record {epoch} must contain {', '.join(required)}")
        for name, value in record.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} of epoch {epoch} must be a finite number")
        if record["epoch"] != epoch:
            raise ValueError(f"epochs must be numbered from 0, and record {epoch} has epoch {record['epoch']}")
        parts = [record.get(name, 0) for name in ("validation_accuracy", "validation_disagreement")]
        if record["seconds"] < 0 or not all(0 <= part <= 1 for part in parts):
            raise ValueError(f"seconds of epoch {epoch} must be at least 0, and accuracies from 0 to 1")
