"""What is looked at before the first step, so that no training is lost to it: targets, and the network's outputs."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Build, Inference
from bayes_share.inference.batches.source import Source, TargetCheck
from bayes_share.inference.draws.forward import evaluating
from bayes_share.inference.execution import Execution
from bayes_share.models.model import Model
from bayes_share.sharing.members_interface import Members
from bayes_share.tensors.seeding import seeded
from bayes_share.tensors.trees import Tree, num_examples

_FEW = 4  # examples that are looked at


def looked_at(algorithm: Inference[Any], state: Any, source: Source, seed: int) -> tuple[Source, TargetCheck]:
    """A source whose targets are as the likelihood takes them, after a look at a few examples by the algorithm too.

    Args:
        algorithm: that made the state.
        state: before the first step; is left as it is.
        source: of the training examples.
        seed: of what the algorithm draws when it looks.

    Returns:
        The source, and how the likelihood takes other targets.

    Raises:
        InputError: what `Likelihood.prepare` and `Inference.check` refuse, or a loss without a posterior.
    """
    model = algorithm.draw(state, 0).parts[0].model
    likelihood = model.likelihood
    reason = likelihood.why_no_posterior()
    if reason and algorithm.needs_log_lik:
        name = type(algorithm).__name__
        raise InputError(f"{name} needs a posterior, and {reason}: take MAP, or a deep ensemble of it")
    with seeded(seed, "check"):
        few, outputs = _first_outputs(model, lambda count: source.first(count).inputs, source.batch_size)

        def part(targets: Tensor) -> Tensor:
            return likelihood.prepare(targets, outputs.to(targets.device))

        def whole(targets: Tensor) -> Tensor:
            prepared = part(targets)
            likelihood.check_known(prepared)
            return prepared

        check = TargetCheck(whole, part)
        source = source.checked(check)
        algorithm.check(state, source.first(num_examples(few)))
    return source, check


def settling(build: Build, source: Source, execution: Execution) -> Build:
    """A function that builds the same models, each placed, and settled by a few examples before it has an optimizer.

    Args:
        build: gives a freshly initialised model.
        source: of the training examples.
        execution: where the model is placed.
    """

    def settled() -> Model:
        model = execution.place(build())
        if isinstance(model.network, Members) and not model.network.is_settled:
            few = source.on(execution, precision_of(model)).first(min(_FEW, source.batch_size))
            with execution.autocast(), suppress(InputError):  # what the network refuses is said by its first step
                model.settle(few.inputs)
        return model

    return settled


def precision_of(model: Model) -> torch.dtype:
    """The dtype of the parameters."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _first_outputs(model: Model, first: Callable[[int], Tree], batch_size: int) -> tuple[Tree, Tensor]:
    """A few inputs, and the outputs for them in eval mode."""
    with evaluating(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        # Some networks take batches of one size only: that of a step, or a member's part of it.
        for size in (min(_FEW, batch_size), max(1, batch_size // model.ensemble_size)):
            few = first(size)
            with suppress(Exception):
                return few, model(few)
        batch = first(batch_size)
        return batch, model(batch)
