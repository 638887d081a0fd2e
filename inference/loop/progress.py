"""Check the progress stored in a checkpoint before a training resumes from it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bayes_share.inference.loop.history import ALWAYS, check_history
from bayes_share.inference.step.losses import check_finite


def check_progress(
    state_dict: Mapping[str, Any],
    num_steps: int,
    steps_per_epoch: int,
    goes_on_within_epochs: bool,
    is_stopped: bool,
    keep: int | None,
    kept: Sequence[int] | None,
    sums: Tensor,
) -> None:
    """Check whether a training can resume from a saved state.

    Args:
        state_dict: the saved state, from `Training.state_dict`.
        num_steps: number of steps of the training.
        steps_per_epoch: number of steps in an epoch of its source.
        goes_on_within_epochs: whether its source can be resumed within an epoch.
        is_stopped: whether the saved training stopped early.
        keep: number of members that the training keeps at its end. None: all members.
        kept: the members that it has already kept.
        sums: its sums over the unfinished epoch, whose shape and dtype the saved ones must have.

    Raises:
        ValueError: if the saved training cannot be a state of this one.
        RunError: if a value in the state is NaN or infinite.
    """
    step, is_finished, seconds = (state_dict[name] for name in ("step", "is_finished", "seconds"))
    if type(step) is not int or not 0 <= step <= num_steps:
        raise ValueError(f"its step is {step!r}, and the training has {num_steps} steps")
    if type(is_finished) is not bool or (is_finished and step < num_steps and not is_stopped):
        raise ValueError(f"it is marked as finished at step {step} of {num_steps}")
    if step % steps_per_epoch and step < num_steps and not goes_on_within_epochs:
        raise ValueError(f"its step {step} is within an epoch, where these data cannot be resumed")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"its training time is {seconds!r} seconds")
    if len(state_dict["history"]) != step // steps_per_epoch:
        raise ValueError(f"its history has {len(state_dict['history'])} epochs after step {step}")
    check_history(state_dict["history"], ALWAYS)
    saved = state_dict.get("kept")
    if (saved is None) != (keep is None or not is_finished) or (saved is not None and len(saved) != keep):
        wanted = "all" if keep is None or not is_finished else f"{keep} of them"
        raise ValueError(f"its kept members are {saved!r}, and the training keeps {wanted}")
    if kept is not None and kept != saved:
        raise ValueError(f"its kept members are {saved!r}, not {kept!r}")
    found = state_dict["sums"]
    is_alike = found.shape == sums.shape and found.dtype == sums.dtype
    if not is_alike or not bool(found.isfinite().all()):
        raise ValueError("its sums over the unfinished epoch are invalid")
    check_finite(state_dict["state"], step, num_steps)
