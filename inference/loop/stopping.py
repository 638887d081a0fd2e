"""Early stopping: when the validation NLL no longer falls, training ends with the best state that there was."""

import math
from collections.abc import Callable
from typing import Any

from bayes_share.errors import InputError
from bayes_share.tensors.trees import copied


class EarlyStopping:
    """Stops after `patience` epochs in a row without a lower validation NLL, and has the state of the best epoch.

    Args:
        patience: epochs.

    Raises:
        InputError: fewer than 1.
    """

    def __init__(self, patience: int) -> None:
        if type(patience) is not int or patience < 1:
            raise InputError(f"patience is a number of epochs, at least 1, not {patience!r}")
        self._patience = patience
        self._lowest = math.inf
        self._epochs_since = 0
        self.best: dict[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether training is to stop."""
        return self._epochs_since >= self._patience

    def add(self, nll: float, state: Callable[[], dict[str, Any]]) -> None:
        """Take in the validation NLL of an epoch.

        Args:
            nll: of the state after it.
            state: gives that state, of which a copy is kept, on the host, where it is the best so far.
        """
        if nll < self._lowest or self.best is None:
            self._lowest, self._epochs_since = nll, 0
            self.best = copied(state())
        else:
            self._epochs_since += 1

    def state_dict(self) -> dict[str, Any]:
        """The best state, and how long ago it was."""
        return {"lowest": self._lowest, "epochs_since": self._epochs_since, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: something else.
        """
        lowest, since, best = (state_dict[name] for name in ("lowest", "epochs_since", "best"))
        if type(lowest) is not float or type(since) is not int or since < 0 or not isinstance(best, dict | None):
            raise ValueError(f"its best epoch was {since!r} epochs ago, with a validation NLL of {lowest!r}")
        self._lowest, self._epochs_since, self.best = lowest, since, best
