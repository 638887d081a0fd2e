"""Features: what the last layer of each member sees, caught on the way to the predictions."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bayes_share.inference.algorithm import Forward, Inference
from bayes_share.inference.draws.forward import device_of_draw
from bayes_share.inference.draws.in_parts import InParts
from bayes_share.inference.draws.output_layer import FEW, NoOutputLayer, OutputLayer, find_output_layer
from bayes_share.inference.predict import check_asked
from bayes_share.tensors.trees import Tree, num_examples, rows


def predict_with_features(
    algorithm: Inference[Any],
    state: Any,
    x: Tree,
    num_samples: int = 1,
    batch_size: int | None = None,
    transform: Callable[[Tree], Tree] = lambda x: x,
) -> tuple[Float[Tensor, "draw member batch class"], Float[Tensor, "member batch feature"] | None]:
    """The logits of every draw and member, as `predict` gives them, and the features of every member.

    A member's features are the inputs of its last layer: of the linear layer whose outputs the network gives, cast,
    rearranged or with a constant added as may be; a trial on a few inputs finds it. They are scaled to length 1 in each
    draw, and then averaged over the draws. It does not matter how the members are computed (at once, one after the
    other, folded), nor which algorithm drew them. A compiled network runs as it was written.

    Args:
        algorithm: that made the state.
        state: after as many steps as you like.
        x: inputs ``[batch, ...]``, a tensor or a dict, tuple or list of tensors.
        num_samples: draws.
        batch_size: as in `predict`.
        transform: applied to each part of `x` before the network.

    Returns:
        Logits in at least float32 and features in float32, on the CPU; None for features where the outputs of the
        network are not those of a linear layer, or an input has several of its rows.
    """
    check_asked(algorithm, state, x, num_samples, batch_size)
    draws: list[Tensor] = []
    total: Tensor | None = None
    last: OutputLayer | None = None
    with torch.compiler.set_stance("force_eager"):
        in_parts = InParts(batch_size, device_of_draw(algorithm.draw(state, 0)))
        for sample in range(num_samples):
            forward = algorithm.draw(state, sample)
            if sample == 0:
                last = _last_layer(forward, transform(rows(x, slice(in_parts.batch_size))))
            parts = in_parts(lambda part: _run(forward, transform(part), last), x)  # noqa: B023 (at once)
            logits = torch.cat([logits for logits, _ in parts], dim=1)
            draws.append(logits.to(torch.promote_types(logits.dtype, torch.float32)))
            found = [features for _, features in parts if features is not None]
            if len(found) < len(parts):
                last = None
            else:
                features = torch.cat(found, dim=1)
                total = features if total is None else total + features
    return torch.stack(draws), None if last is None or total is None else total / num_samples


def _last_layer(forward: Forward, x: Tree, examples: int = FEW) -> OutputLayer | None:
    """The layer whose inputs are the features; None where an input's outputs are not those of one row of a layer."""
    try:
        last = find_output_layer(forward, rows(x, slice(examples)), batch_axis=1)
    except NoOutputLayer:
        return None
    except Exception:  # whatever a network raises that takes batches of one size alone
        return _last_layer(forward, x, num_examples(x)) if examples < num_examples(x) else None
    return last if last.row_axes == (0, 1) else None


def _run(forward: Forward, x: Tree, last: OutputLayer | None) -> tuple[Tensor, Tensor | None]:
    """Logits, and the features where there are any."""
    if last is not None:
        try:
            inputs, logits = last.inputs(forward, x)
        except NoOutputLayer:
            pass
        else:
            features = F.normalize(inputs.unflatten(0, logits.shape[:2]).float(), dim=-1)
            return logits.cpu(), features.cpu()
    return forward(x).cpu(), None
