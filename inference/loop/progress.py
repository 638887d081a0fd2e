"""Where a saved training was, looked at before another one goes on from there."""

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
    """See whether a training can be where a saved one was.

    Args:
        state_dict: of the saved one, as `Training.state_dict` gives it.
        num_steps: that the training takes.
        steps_per_epoch: of its source.
        goes_on_within_epochs: whether its source does.
        is_stopped: whether it has stopped early.
        keep: how many members it keeps at its end; None: all.
        kept: those that it has kept already.
        sums: of its unfinished epoch, for their form.

    Raises:
        ValueError: the saved training says that it is where this one cannot be.
        RunError: numbers in the state are not finite.
    """
    step, is_finished, seconds = (state_dict[name] for name in ("step", "is_finished", "seconds"))
    if type(step) is not int or not 0 <= step <= num_steps:
        raise ValueError(f"its step is {step!r}, and there are {num_steps}")
    if type(is_finished) is not bool or (is_finished and step < num_steps and not is_stopped):
        raise ValueError(f"it is said to be finished at step {step} of {num_steps}")
    if step % steps_per_epoch and step < num_steps and not goes_on_within_epochs:
        raise ValueError(f"its step is {step}, within an epoch, where these data cannot be gone on with")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"its seconds are {seconds!r}")
    if len(state_dict["history"]) != step // steps_per_epoch:
        raise ValueError(f"it has a history of {len(state_dict['history'])} epochs after step {step}")
    check_history(state_dict["history"], ALWAYS)
    saved = state_dict.get("kept")
    if (saved is None) != (keep is None or not is_finished) or (saved is not None and len(saved) != keep):
        raise ValueError(f"the members that it kept are {saved!r}")
    if kept is not None and kept != saved:
        raise ValueError(f"it is of other members than the {len(kept)} that were kept")
    found = state_dict["sums"]
    is_alike = found.shape == sums.shape and found.dtype == sums.dtype
    if not is_alike or not bool(found.isfinite().all()):
        raise ValueError("its sums over the unfinished epoch are not finite numbers")
    check_finite(state_dict["state"], step, num_steps)
