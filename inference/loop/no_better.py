"""Trainings that ended worse than they began, though every number is finite."""

from collections.abc import Sequence

from bayes_share.inference.loop.history import Line

_CLEARLY = 0.1  # of the first loss, or nats where that is small: more than batches and augmentation make of it


def no_better(history: Sequence[Line]) -> str | None:
    """What to say where the training data are less probable at the end than in the first epoch; None where not.

    Args:
        history: a line for each epoch.

    >>> no_better([{"train_nll": 1.4}, {"train_nll": 3.1}])[:66]
    'the loss of the last epoch, 3.1, is above that of the first, 1.4: '
    >>> no_better([{"train_nll": 1.4}, {"train_nll": 1.2}])
    """
    if len(history) < 2:
        return None
    first, last = history[0]["train_nll"], history[-1]["train_nll"]
    if last - first <= _CLEARLY * max(1.0, abs(first)):
        return None
    return (
        f"the loss of the last epoch, {last:.3g}, is above that of the first, {first:.3g}: try a lower learning rate, "
        f"clipping, or inputs and targets that are standardised"
    )
