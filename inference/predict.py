"""Prediction with any algorithm."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Inference
from bayes_share.inference.draws.forward import check_state
from bayes_share.tensors.trees import Tree, check_tree, split


def predict(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    num_samples: int = 1,
    batch_size: int = 500,
    transform: Callable[[Tree], Tree] = lambda x: x,
) -> Float[Tensor, "draw member batch class"]:
    """The logits of every draw and member.

    Changes nothing: neither the state nor the training mode of its network. The batch size sets the memory that is
    needed, not the answer.

    Args:
        algorithm: that made the state.
        state: after as many steps as you like.
        x: inputs ``[batch, ...]``, a tensor or a dict, tuple or list of tensors.
        num_samples: draws.
        batch_size: inputs at a time.
        transform: applied to each part of `x` before the network, for example a normalisation of uint8 images.

    Returns:
        Logits in at least float32, on the CPU.

    Raises:
        InputError: no draw.
    """
    return torch.stack(list(predict_draws(algorithm, state, x, num_samples, batch_size, transform)))


def predict_draws(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    num_samples: int = 1,
    batch_size: int = 500,
    transform: Callable[[Tree], Tree] = lambda x: x,
) -> Iterator[Float[Tensor, "member batch class"]]:
    """The same, one draw after the other, each computed when it is asked for.

    Args:
        algorithm: that made the state.
        state: is looked at for each draw.
        x: inputs ``[batch, ...]``, a tensor or a dict, tuple or list of tensors.
        num_samples: draws.
        batch_size: inputs at a time.
        transform: as in `predict`.

    Yields:
        Each draw's logits in at least float32, on the CPU.

    Raises:
        InputError: no draw, no input at a time, another algorithm's state or something else in place of a state, or
            inputs that are not tensors.
    """
    check_asked(algorithm, state, x, num_samples, batch_size)
    for sample in range(num_samples):
        forward = algorithm.draw(state, sample)
        logits = torch.cat([forward(transform(part)).cpu() for part in split(x, batch_size)], dim=1)
        yield logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_asked(algorithm: Inference[Any], state: Any, x: Any, num_samples: int, batch_size: int) -> None:
    """Raise an InputError where no prediction can be made of what was handed in; names what is wrong."""
    check_state(algorithm, state)
    check_tree("inputs", x)
    if num_samples < 1:
        raise InputError(f"prediction takes at least 1 draw, not {num_samples}")
    if batch_size < 1:
        raise InputError(f"prediction takes at least 1 input at a time, not {batch_size}")
