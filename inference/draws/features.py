"""Features: the inputs of each member's last layer, captured during prediction."""

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
    """Compute the logits of every draw and member, as `predict` does, and the features of every member.

    A member's features are the inputs of its last linear layer. This is the layer whose outputs the network returns,
    possibly cast, rearranged or with a constant added; it is found by a trial on a few inputs. Features are normalised
    to length 1 in each draw and averaged over draws. They do not depend on how members are computed (jointly, one after
    another or folded) or on the algorithm. A compiled network runs uncompiled.

    Args:
        algorithm: the algorithm that made the state.
        state: the state after any number of steps.
        x: inputs ``[batch, ...]``: a tensor, or a dict, tuple or list of tensors.
        num_samples: number of draws.
        batch_size: as in `predict`.
        transform: applied to each part of `x` before the network.

    Returns:
        Logits in float32 or float64 and features in float32, on the CPU. The features are None if the network's outputs
        are not those of a linear layer, or if an input has several rows in that layer.
    """
    check_asked(algorithm, state, x, num_samples, batch_size)
    draws: list[Tensor] = []
    total: Tensor | None = None
    last: OutputLayer | None = None
    with torch.compiler.set_stance("force_eager"):
        forward = algorithm.draw(state, 0)
        in_parts = InParts(batch_size, device_of_draw(forward))
        for sample in range(num_samples):
            if sample > 0:
                forward = algorithm.draw(state, sample)
            else:
                last = _last_layer(forward, transform(rows(x, slice(in_parts.batch_size))))
            parts = in_parts(lambda part: _run(forward, transform(part), last), x)  # noqa: B023 (called at once)
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
    """Return the layer whose inputs are the features, or None if an input is not exactly one of its rows."""
    try:
        last = find_output_layer(forward, rows(x, slice(examples)), batch_axis=1)
    except NoOutputLayer:
        return None
    except Exception:  # any error of a network that requires a certain batch size
        return _last_layer(forward, x, num_examples(x)) if examples < num_examples(x) else None
    return last if last.row_axes == (0, 1) else None


def _run(forward: Forward, x: Tree, last: OutputLayer | None) -> tuple[Tensor, Tensor | None]:
    """Return logits, and features if there are any."""
    if last is not None:
        try:
            inputs, logits = last.inputs(forward, x)
        except NoOutputLayer:
            pass
        else:
            features = F.normalize(inputs.unflatten(0, logits.shape[:2]).float(), dim=-1)
            return logits.cpu(), features.cpu()
    return forward(x).cpu(), None
