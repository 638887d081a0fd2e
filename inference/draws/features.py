"""Features: what the last layer of each member sees, caught on the way to the predictions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from bayes_share.inference.algorithm import Inference
from bayes_share.inference.predict import check_asked

Call = tuple[Tensor, Tensor]
"""Inputs and outputs of a linear layer, ``[row, feature]`` and ``[row, output]``."""


def predict_with_features(
    algorithm: Inference[Any],
    state: Any,
    x: Shaped[Tensor, "batch ..."],
    num_samples: int = 1,
    batch_size: int = 500,
    transform: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Float[Tensor, "draw member batch class"], Float[Tensor, "member batch feature"] | None]:
    """The logits of every draw and member, as `predict` gives them, and the features of every member.

    A member's features are the inputs of its last layer: of the linear layer whose outputs are the network's. They are
    scaled to length 1 in each draw, and then averaged over the draws. It does not matter how the members are computed
    (at once, one after the other, folded), nor which algorithm drew them. A compiled network runs as it was written.

    Args:
        algorithm: that made the state.
        state: after as many steps as you like.
        x: inputs.
        num_samples: draws.
        batch_size: inputs at a time.
        transform: applied to each part of `x` before the network.

    Returns:
        Logits in at least float32 and features in float32, on the CPU; None for features where the outputs of the
        network are not those of a linear layer.
    """
    check_asked(algorithm, state, x, num_samples, batch_size)
    draws: list[Tensor] = []
    total: Tensor | None = None
    is_known = True
    with torch.compiler.set_stance("force_eager"):
        for sample in range(num_samples):
            forward = algorithm.draw(state, sample)
            parts = [_with_features(forward, transform(part)) for part in x.split(batch_size)]
            logits = torch.cat([logits for logits, _ in parts], dim=1)
            draws.append(logits.to(torch.promote_types(logits.dtype, torch.float32)))
            found = [features for _, features in parts if features is not None]
            is_known = is_known and len(found) == len(parts)
            if is_known:
                features = torch.cat(found, dim=1)
                total = features if total is None else total + features
    return torch.stack(draws), total / num_samples if is_known and total is not None else None


def _with_features(forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor | None]:
    with linear_calls() as calls:
        logits = forward(x)
    inputs = last_inputs(calls, logits)
    return logits.cpu(), None if inputs is None else F.normalize(inputs.float(), dim=-1).cpu()


@contextmanager
def linear_calls() -> Iterator[list[Call]]:
    """A list that every call of a linear layer is appended to, of whatever network, for as long as this lasts.

    A hook for all modules, since members may be computed by modules that are made at the call. Only layers whose
    outputs could be those of a network, ``[row, output]``, are listed, with copies: a network may change either in
    place afterwards.
    """
    calls: list[Call] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.Linear) and output.ndim == 2:
            calls.append((inputs[0].clone(), output.clone()))

    handle = register_module_forward_hook(note)
    try:
        yield calls
    finally:
        handle.remove()


def last_inputs(calls: list[Call], logits: Float[Tensor, "member batch class"]) -> Tensor | None:
    """The inputs ``[member, batch, feature]`` of the linear layers whose outputs are the logits.

    Args:
        calls: in their order, of all members at once or of one after the other.
        logits: what the network gave.

    Returns:
        None where the outputs of no such layers are the logits of all members.

    >>> layer = nn.Linear(3, 2)
    >>> with linear_calls() as calls:
    ...     logits = torch.stack([layer(torch.ones(4, 3)), layer(torch.zeros(4, 3))])
    >>> last_inputs(calls, logits).mean((1, 2))
    tensor([1., 0.])
    """
    rows = logits.flatten(0, 1)
    found: list[Tensor] = []
    first = 0
    for inputs, outputs in calls:
        if torch.equal(outputs, rows[first : first + len(outputs)]):
            found.append(inputs)
            first += len(outputs)
    if first < len(rows) or len({inputs.shape[-1] for inputs in found}) > 1:
        return None
    return torch.cat(found).unflatten(0, logits.shape[:2])
