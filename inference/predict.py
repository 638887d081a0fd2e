"""Prediction with any algorithm."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Inference
from bayes_share.inference.draws.forward import check_state, device_of_draw
from bayes_share.inference.draws.in_parts import InParts, check_at_a_time
from bayes_share.inference.step.ranks import ALONE, Ranks
from bayes_share.tensors.trees import Tree, check_tree


def predict(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    num_samples: int = 1,
    batch_size: int | None = None,
    transform: Callable[[Tree], Tree] = lambda x: x,
    ranks: Ranks = ALONE,
) -> Float[Tensor, "draw member batch class"]:
    """Compute the logits of every draw and member.

    Neither the state nor the training mode of its network changes. The batch size affects memory use but not the
    result.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after any number of steps.
        x: inputs ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors.
        num_samples: number of draws.
        batch_size: number of inputs per forward pass. None: 500; on a GPU 4,000, or as many as fit into its memory.
        transform: applied to each part of `x` before the network, for example a normalisation of uint8 images.
        ranks: processes that make the same prediction together, each a part of it. Pass `Ranks.here()` in all of them.

    Returns:
        Logits on the CPU, in float32 or float64.

    Raises:
        InputError: if `num_samples` or `batch_size` is below 1, the state is not one of the algorithm, or the inputs
            are not tensors.
    """
    return torch.stack(list(predict_draws(algorithm, state, x, num_samples, batch_size, transform, ranks)))


def predict_draws(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    num_samples: int = 1,
    batch_size: int | None = None,
    transform: Callable[[Tree], Tree] = lambda x: x,
    ranks: Ranks = ALONE,
) -> Iterator[Float[Tensor, "member batch class"]]:
    """Yield the logits of one draw after another, each computed on demand.

    Args:
        algorithm: the algorithm that made the state.
        state: the state; each draw uses its current content.
        x: inputs ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors.
        num_samples: number of draws.
        batch_size: as in `predict`.
        transform: as in `predict`.
        ranks: as in `predict`.

    Yields:
        The logits of each draw on the CPU, in float32 or float64.

    Raises:
        InputError: as in `predict`.
    """
    check_asked(algorithm, state, x, num_samples, batch_size)
    forward = algorithm.draw(state, 0)
    in_parts = InParts(batch_size, device_of_draw(forward), ranks)
    for sample in range(num_samples):
        forward = forward if sample == 0 else algorithm.draw(state, sample)
        logits = torch.cat(in_parts(lambda part: forward(transform(part)).cpu(), x), dim=1)  # noqa: B023 (called at once)
        yield logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_asked(algorithm: Inference[Any], state: Any, x: Any, num_samples: int, batch_size: int | None) -> None:
    """Raise InputError if the arguments of a prediction are invalid."""
    check_state(algorithm, state)
    check_tree("inputs", x)
    if num_samples < 1:
        raise InputError(f"prediction requires at least 1 draw, not {num_samples}")
    check_at_a_time(batch_size)
