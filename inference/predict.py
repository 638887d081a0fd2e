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
    """The logits of every draw and member.

    Changes nothing: neither the state nor the training mode of its network. The batch size sets the memory that is
    needed, not the answer.

    Args:
        algorithm: that made the state.
        state: after as many steps as you like.
        x: inputs ``[batch, ...]``, a tensor or a dict, tuple or list of tensors.
        num_samples: draws.
        batch_size: inputs at a time; None: 500, and on a GPU 4,000, or as many as its memory holds.
        transform: applied to each part of `x` before the network, for example a normalisation of uint8 images.
        ranks: processes that make the same prediction together, each a part of it: `Ranks.here()` in all of them.

    Returns:
        Logits in at least float32, on the CPU.

    Raises:
        InputError: no draw.
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
    """The same, one draw after the other, each computed when it is asked for.

    Args:
        algorithm: that made the state.
        state: is looked at for each draw.
        x: inputs ``[batch, ...]``, a tensor or a dict, tuple or list of tensors.
        num_samples: draws.
        batch_size: as in `predict`.
        transform: as in `predict`.
        ranks: as in `predict`.

    Yields:
        Each draw's logits in at least float32, on the CPU.

    Raises:
        InputError: no draw, no input at a time, another algorithm's state or something else in place of a state, or
            inputs that are not tensors.
    """
    check_asked(algorithm, state, x, num_samples, batch_size)
    in_parts = InParts(batch_size, device_of_draw(algorithm.draw(state, 0)), ranks)
    for sample in range(num_samples):
        forward = algorithm.draw(state, sample)
        logits = torch.cat(in_parts(lambda part: forward(transform(part)).cpu(), x), dim=1)  # noqa: B023 (at once)
        yield logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_asked(algorithm: Inference[Any], state: Any, x: Any, num_samples: int, batch_size: int | None) -> None:
    """Raise an InputError where no prediction can be made of what was handed in; names what is wrong."""
    check_state(algorithm, state)
    check_tree("inputs", x)
    if num_samples < 1:
        raise InputError(f"prediction takes at least 1 draw, not {num_samples}")
    check_at_a_time(batch_size)
