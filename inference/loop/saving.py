"""When to save the checkpoints of a training."""

import time

from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.inference.train import Training

SAVING_PAYS = 20  # save after an epoch if this many times the duration of the last saving has passed since


class Saver:
    """Saves a training after the first epoch, after later epochs if that is cheap, and at time intervals.

    Args:
        checkpoints: where to save.
        minutes: maximum time between checkpoints.
        noted: entries added to each checkpoint, as plain values by name; they identify the training.
    """

    def __init__(self, checkpoints: Checkpoints, minutes: float, noted: dict[str, object]) -> None:
        self._checkpoints, self._minutes, self._noted = checkpoints, minutes, noted
        self._saved_at, self._took = time.monotonic(), 0.0

    def is_due(self, training: Training) -> bool:
        """Return whether a checkpoint should be saved now."""
        since = time.monotonic() - self._saved_at
        is_worth = training.step % training.steps_per_epoch == 0 and since >= SAVING_PAYS * self._took
        return is_worth or since > 60 * self._minutes

    def save(self, training: Training) -> None:
        """Save the current state; if the source cannot be resumed within epochs, that of the last epoch's end."""
        started = time.monotonic()
        content = training.state_dict()
        self._checkpoints.save(content["step"], {**self._noted, **content})
        self._saved_at = time.monotonic()
        self._took = self._saved_at - started
