"""The history of a training: a record of figures for each epoch."""

import math
from collections.abc import Sequence

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
"""What is noted of each epoch."""


def check_history(history: Sequence[object]) -> None:
    """See whether something that was read is a history: of the epochs 0, 1, ... in order, of finite numbers.

    Raises:
        ValueError: it is none; names the first fault.
    """
    for epoch, record in enumerate(history):
        if not isinstance(record, dict) or not set(record) >= set(COLUMNS):
            raise ValueError(f"record {epoch} must have {', '.join(COLUMNS)}")
        for name, value in record.items():
            if type(value) not in (int, float) or not math.isfinite(value):
                raise ValueError(f"{name} of epoch {epoch} must be a finite number")
        if record["epoch"] != epoch:
            raise ValueError(f"the epochs must be counted from 0, and record {epoch} is of {record['epoch']}")
        if record["seconds"] < 0 or not 0 <= record["validation_accuracy"] <= 1:
            raise ValueError(f"seconds of epoch {epoch} must be at least 0, and accuracies from 0 to 1")
