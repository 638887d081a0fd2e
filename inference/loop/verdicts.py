"""What is said of a training at its end."""

from collections.abc import Iterator, Sequence
from typing import Any

from bayes_share.inference.algorithm import Inference
from bayes_share.inference.batches.source import Source
from bayes_share.inference.loop.history import Line
from bayes_share.inference.loop.near_copies import MadeDifferent, judged_line, near_copies
from bayes_share.inference.loop.no_better import no_better


def where_it_stopped(history: Sequence[Line], planned: int) -> str:
    """Which epoch's state it is, where training may stop early.

    Args:
        history: a line for each epoch.
        planned: epochs.
    """
    when = f"stopped after epoch {len(history)} of {planned}" if len(history) < planned else f"all {planned} epochs"
    best = judged_line(history, is_best=True)
    return f"{when}; the state is that of epoch {int(best['epoch']) + 1}, of the lowest validation NLL"


def verdicts(
    algorithm: Inference[Any], state: Any, history: Sequence[Line], validation: Source | None, is_best: bool
) -> Iterator[str]:
    """Why the result may not be what was wanted: training made things worse, or members are near copies.

    Args:
        algorithm: that made the state.
        state: after the last step.
        history: a line for each epoch.
        validation: what was scored after each; None: nothing.
        is_best: whether the state is that of the best epoch, and not of the last.
    """
    # A chain's loss wanders, and the state of the best epoch is not worse than the first.
    if not algorithm.is_chain and not is_best and (said := no_better(history)) is not None:
        yield said
    parts = algorithm.draw(state, 0).parts
    if validation is None or not history or len(parts) > 1:
        return
    model, line = parts[0].model, judged_line(history, is_best)
    made = MadeDifferent.of(model, algorithm.feeding(state).is_own)
    if (said := near_copies(line, validation.num_data, model.ensemble_size, made)) is not None:
        yield said
