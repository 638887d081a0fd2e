"""The length of a training in steps."""

from numbers import Integral

from bayes_share.errors import InputError


def number_of_steps(epochs: int | None, num_steps: int | None, steps_per_epoch: int) -> int:
    """Return the number of steps, from the number of epochs or as given.

    Args:
        epochs: number of passes over the training data, or None.
        num_steps: number of steps, or None.
        steps_per_epoch: number of steps in an epoch.

    Raises:
        InputError: if both or neither are given, or one is out of range.
    """
    if epochs is not None and num_steps is not None:
        raise InputError("give epochs or num_steps, not both")
    if num_steps is not None:
        if not isinstance(num_steps, Integral) or num_steps < 0:
            raise InputError(f"the number of steps must be an integer of at least 0, not {num_steps}")
        return int(num_steps)
    if not isinstance(epochs, Integral) or epochs < 1:
        raise InputError(f"the number of epochs must be an integer of at least 1, not {epochs}")
    return int(epochs) * steps_per_epoch
