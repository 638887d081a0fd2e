"""Which members are kept after a training, where only some are."""

from collections.abc import Iterable
from typing import Any

import torch

from bayes_share.inference.algorithm import Batch, Inference
from bayes_share.inference.draws.pointwise import log_lik_under
from bayes_share.models.mixture import best_members, check_count


def check_keeps(algorithm: Inference[Any], state: Any, count: int) -> None:
    """See before the training whether so many members can be kept after it, by a trial on the first of them.

    Raises:
        InputError: there are fewer, or the algorithm cannot keep some alone.
    """
    check_count(count, sum(part.model.ensemble_size for part in algorithm.draw(state, 0).parts))
    algorithm.keep_members(state, range(count))


def chosen_members(
    algorithm: Inference[Any], state: Any, batches: Iterable[Batch], num_samples: int, count: int
) -> list[int]:
    """The members with the best mixture on validation data, by `best_members`, in ascending order.

    Args:
        algorithm: that made the state.
        state: after training.
        batches: of the validation data, with targets as the likelihood takes them; gone through once for each draw.
        num_samples: draws.
        count: how many are chosen.
    """
    draws = []
    for sample in range(num_samples):
        forward = algorithm.draw(state, sample)
        draws.append(torch.cat([log_lik_under(forward, forward(x), y).cpu() for x, y, *_ in batches], 1))
    return sorted(best_members(torch.stack(draws), count))
