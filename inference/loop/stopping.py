"""Early stopping: end training when the validation NLL stops falling, with the state of the best epoch."""

import math
from collections.abc import Callable
from typing import Any

from bayes_share.errors import InputError
from bayes_share.tensors.trees import copied


class EarlyStopping:
    """Stops after `patience` consecutive epochs without a lower validation NLL, and stores the state of the best epoch.

    Args:
        patience: number of epochs.

    Raises:
        InputError: if `patience` is below 1 or not an integer.
    """

    def __init__(self, patience: int) -> None:
        if type(patience) is not int or patience < 1:
            raise InputError(f"patience must be an integer number of epochs, at least 1, not {patience!r}")
        self._patience = patience
        self._lowest = math.inf
        self._epochs_since = 0
        self.best: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether training should stop."""
        return self._epochs_since >= self._patience

    def add(self, nll: float, state: Callable[[], dict[str, Any]]) -> None:
        """Add the validation NLL of an epoch.

        Args:
            nll: the validation NLL after the epoch.
            state: returns the state after the epoch. If it is the best so far, a copy is stored on the host.
        """
        if nll < self._lowest or self.best is None:
            self._lowest, self._epochs_since = nll, 0
            self.best = copied(state())
        else:
            self._epochs_since += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the best state, its NLL and the number of epochs since."""
        return {"lowest": self._lowest, "epochs_since": self._epochs_since, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`.

        Raises:
            ValueError: if it is invalid.
        """
        lowest, since, best = (state_dict[name] for name in ("lowest", "epochs_since", "best"))
        if type(lowest) is not float or type(since) is not int or since < 0 or not isinstance(best, dict | None):
            raise ValueError(f"its best epoch was {since!r} epochs ago, with a validation NLL of {lowest!r}")
        self._lowest, self._epochs_since, self.best = lowest, since, best
