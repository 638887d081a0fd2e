"""Messages about a training at its end."""

from collections.abc import Iterator, Sequence
from typing import Any

from bayes_share.inference.algorithm import Inference
from bayes_share.inference.batches.source import Source
from bayes_share.inference.loop.history import Line
from bayes_share.inference.loop.near_copies import Remedies, judged_line, near_copies
from bayes_share.inference.loop.no_better import no_better


def where_it_stopped(history: Sequence[Line], planned: int) -> str:
    """Return a message about the epoch of the final state, for a training with early stopping.

    Args:
        history: a record for each epoch.
        planned: number of planned epochs.
    """
    when = (
        f"stopped after epoch {len(history)} of {planned}"
        if len(history) < planned
        else f"trained for all {planned} epochs"
    )
    best = judged_line(history, is_best=True)
    return f"{when}; the state is from epoch {int(best['epoch']) + 1}, which has the lowest validation NLL"


def verdicts(
    algorithm: Inference[Any], state: Any, history: Sequence[Line], validation: Source | None, is_best: bool
) -> Iterator[str]:
    """Yield warnings about the result: training increased the loss, or members are near copies.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after the last step.
        history: a record for each epoch.
        validation: the examples that were scored after each epoch. None: there were none.
        is_best: whether the state is from the best epoch instead of the last one.
    """
    # The loss of a chain fluctuates, and the best epoch is never worse than the first.
    if not algorithm.is_chain and not is_best and (said := no_better(history)) is not None:
        yield said
    parts = algorithm.draw(state, 0).parts
    if validation is None or not history or len(parts) > 1:
        return
    model, line = parts[0].model, judged_line(history, is_best)
    left = Remedies.of(model, algorithm.feeding(state).is_own)
    # Examples without a label are no evidence. Counting them takes a pass over the data, so it is done only if needed.
    if near_copies(line, validation.num_data, model.ensemble_size, left) is None:
        return
    known = sum(int(model.likelihood.is_known(batch.targets).sum()) for batch in validation.in_order())
    if (said := near_copies(line, known, model.ensemble_size, left)) is not None:
        yield said
