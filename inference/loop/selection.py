"""Select the members to keep after a training."""

from collections.abc import Iterable
from typing import Any

import torch

from bayes_share.inference.algorithm import Batch, Inference
from bayes_share.inference.draws.pointwise import log_lik_under
from bayes_share.models.mixture import best_members, check_count


def check_keeps(algorithm: Inference[Any], state: Any, count: int) -> None:
    """Check before training that so many members can be kept, by keeping the first ones.

    Raises:
        InputError: if there are fewer members, or the algorithm cannot keep a subset of them.
    """
    check_count(count, sum(part.model.ensemble_size for part in algorithm.draw(state, 0).parts))
    algorithm.keep_members(state, range(count))


def chosen_members(
    algorithm: Inference[Any], state: Any, batches: Iterable[Batch], num_samples: int, count: int
) -> list[int]:
    """Choose the members with the best mixture on validation data by `best_members`; return them in ascending order.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after training.
        batches: the validation data with prepared targets, iterated over once per draw.
        num_samples: number of draws.
        count: number of members to choose.
    """
    draws = []
    for sample in range(num_samples):
        forward = algorithm.draw(state, sample)
        draws.append(torch.cat([log_lik_under(forward, forward(x), y).cpu() for x, y, *_ in batches], 1))
    return sorted(best_members(torch.stack(draws), count))
