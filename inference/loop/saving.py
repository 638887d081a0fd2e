"""When a training's checkpoints are saved."""

import time

from bayes_share.inference.checkpoint import Checkpoints
from bayes_share.inference.train import Training

SAVING_PAYS = 20  # at the end of an epoch, when this many times as long as the last saving took has gone by since


class Saver:
    """Saves a training after the first epoch, after each later one where that takes little of the time, and in between.

    Args:
        checkpoints: where to.
        minutes: at most so long without one.
        noted: what is said in each of which training it is, as plain values by name.
    """

    def __init__(self, checkpoints: Checkpoints, minutes: float, noted: dict[str, object]) -> None:
        self._checkpoints, self._minutes, self._noted = checkpoints, minutes, noted
        self._saved_at, self._took = time.monotonic(), 0.0

    def is_due(self, training: Training) -> bool:
        """Whether it is time to save it."""
        since = time.monotonic() - self._saved_at
        is_worth = training.step % training.steps_per_epoch == 0 and since >= SAVING_PAYS * self._took
        return is_worth or since > 60 * self._minutes

    def save(self, training: Training) -> None:
        """Save it as it is now; where its source does not go on within epochs, as it was at the end of the last."""
        started = time.monotonic()
        content = training.state_dict()
        self._checkpoints.save(content["step"], {**self._noted, **content})
        self._saved_at = time.monotonic()
        self._took = self._saved_at - started
