"""What is looked at before the first step, so that no training is lost to it: data, targets, the network's outputs."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Inference
from bayes_share.inference.draws.forward import evaluating
from bayes_share.models.model import Model
from bayes_share.models.targets import check_finite_examples
from bayes_share.seeding import seeded

_FEW = 4  # examples that are looked at


def check_inputs(x: Tensor) -> None:
    """Raise an InputError where inputs ``[example, ...]`` hold NaN or infinity."""
    if x.is_floating_point() or x.is_complex():
        check_finite_examples("inputs", x)


def prepare(
    algorithm: Inference[Any],
    state: Any,
    first: Callable[[int], Tensor],
    batch_size: int,
    targets: Tensor,
    seed: int,
    is_of_classes: bool = False,
) -> Tensor:
    """All training targets as the likelihood takes them, after a look at a few examples by the algorithm too.

    Args:
        algorithm: that made the state.
        state: before the first step; is left as it is.
        first: gives the inputs of so many first examples.
        batch_size: examples in a step.
        targets: ``[example, ...]``, all of them, in the same order.
        seed: of what the algorithm draws when it looks.
        is_of_classes: whether predictions are to be scored as classes.

    Raises:
        InputError: what `Likelihood.prepare` and `Inference.check` refuse; or a likelihood of something else than
            classes where predictions are to be scored as such.
    """
    model = algorithm.draw(state, 0).parts[0].model
    with seeded(seed, "check"):
        few, outputs = _first_outputs(model, first, batch_size)
        if is_of_classes and model.likelihood.class_logits(outputs) is None:
            raise InputError(
                f"fit scores classes on the validation images, and {type(model.likelihood).__name__} with outputs of "
                f"shape {list(outputs.shape[2:])} gives none: use fit_tensors"
            )
        prepared = model.likelihood.prepare(targets.to(outputs.device), outputs)
        algorithm.check(state, Batch(few, prepared[: len(few)]))
    return prepared


def _first_outputs(model: Model, first: Callable[[int], Tensor], batch_size: int) -> tuple[Tensor, Tensor]:
    """A few inputs, and the outputs for them in eval mode."""
    with evaluating(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        # Some networks take batches of one size only: that of a step, or a member's part of it.
        for size in (min(_FEW, batch_size), max(1, batch_size // model.ensemble_size)):
            few = first(size)
            with suppress(Exception):
                return few, model(few)
        batch = first(batch_size)
        return batch, model(batch)
