"""Checks of targets and network outputs before the first step, so that errors do not end a long training."""

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

_FEW = 4  # examples that are checked


def looked_at(algorithm: Inference[Any], state: Any, source: Source, seed: int) -> tuple[Source, TargetCheck]:
    """Check the targets and let the algorithm check a few examples; return the source with prepared targets.

    Args:
        algorithm: the algorithm that made the state.
        state: the state before the first step. It is not changed.
        source: the training examples.
        seed: random seed of the algorithm's check.

    Returns:
        The source, and the check that prepares other targets for the likelihood.

    Raises:
        InputError: if `Likelihood.prepare` or `Inference.check` fails, or the algorithm requires a posterior and the
            loss does not define one.
    """
    model = algorithm.draw(state, 0).parts[0].model
    likelihood = model.likelihood
    reason = likelihood.why_no_posterior()
    if reason and algorithm.needs_log_lik:
        name = type(algorithm).__name__
        raise InputError(f"{name} requires a posterior, and {reason}: use MAP, or a deep ensemble of it")
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
    """Return a function that builds the same models, places each, and settles its ensemble on a few examples.

    An ensemble must be settled before its optimizer is created; see `Model.settle`.

    Args:
        build: builds a freshly initialised model.
        source: the training examples.
        execution: where the model is placed.
    """

    def settled() -> Model:
        model = execution.place(build())
        if isinstance(model.network, Members) and not model.network.is_settled:
            few = source.on(execution, precision_of(model)).first(min(_FEW, source.batch_size))
            compiles_nothing = torch.compiler.set_stance("force_eager")
            with execution.autocast(), compiles_nothing, suppress(InputError):  # the first step reports its error
                model.settle(few.inputs)
        return model

    return settled


def precision_of(model: Model) -> torch.dtype:
    """Return the dtype of the model's parameters."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _first_outputs(model: Model, first: Callable[[int], Tree], batch_size: int) -> tuple[Tree, Tensor]:
    """Return a few inputs and the network's outputs for them in eval mode."""
    with evaluating(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        # Some networks accept one batch size only: that of a step, or of a member's part of it.
        for size in (min(_FEW, batch_size), max(1, batch_size // model.ensemble_size)):
            few = first(size)
            with suppress(Exception):
                return few, model(few)
        batch = first(batch_size)
        return batch, model(batch)
