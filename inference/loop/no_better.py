"""Detection of trainings that ended worse than they began, with finite values."""

from collections.abc import Sequence

from bayes_share.inference.loop.history import Line

_CLEARLY = 0.1  # of the first loss, or nats if that is small: more than batch order and augmentation change it


def no_better(history: Sequence[Line]) -> str | None:
    """Return a warning if the training loss is clearly higher in the last epoch than in the first, otherwise None.

    Args:
        history: a record for each epoch.

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
        f"clipping, or standardised inputs and targets"
    )
