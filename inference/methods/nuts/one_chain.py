"""One chain of the No-U-Turn sampler, as an algorithm of its own: what `NUTS` is composed of."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Forward, StepInfo, Transition
from bayes_share.inference.draws.forward import evaluating
from bayes_share.inference.draws.thinning import Thinning
from bayes_share.inference.methods.nuts.chain import Chain
from bayes_share.inference.step.objective import usual_terms
from bayes_share.models.model import Model


@dataclass(frozen=True)
class NUTSChain(Transition[Chain]):
    """A chain through the posterior of one network; see `NUTS`, whose options these are.

    Args:
        warmup: part of all steps that adapts the sampler, and is not kept.
        keep: largest number of draws that are kept.
        max_tree_depth: at most 2 to this power, less one, gradients are taken in a step.
        target_accept: acceptance probability that the step size is adapted to.
    """

    warmup: float
    keep: int
    max_tree_depth: int
    target_accept: float

    def init(self, build: Build, num_data: int | float, num_steps: int) -> Chain:
        """The chain at the network's initial values."""
        warmup_steps = Thinning(num_steps, self.warmup, self.keep).first
        return Chain(build(), num_data, num_steps, warmup_steps, self.max_tree_depth, self.target_accept)

    def transition(self, state: Chain, batch: Batch) -> StepInfo:
        """Take one transition.

        Raises:
            InputError: a batch that is not all the data, or has weights.
        """
        if batch.weights is not None and batch.counts is None:
            raise InputError("nuts counts all examples alike, and the batch has weights: leave them out")
        seen = len(batch.targets) if batch.counts is None else float(batch.counts.sum())
        if not math.isclose(seen, state.num_data, rel_tol=1e-6):
            raise InputError(
                f"nuts needs all {state.num_data:g} examples in every step, and the batch has {seen:g}: "
                f"set batch_size to null"
            )
        loss = state.transition(batch) / state.num_data
        log_lik, accuracy = _fit_of(state.model, batch)
        return StepInfo(loss, log_lik, torch.zeros_like(log_lik), accuracy, loss.new_tensor(state.step_size))

    def after_step(self, state: Chain, steps: int) -> None:
        """Keep the draw, where it is time for one."""
        if Thinning(state.num_steps, self.warmup, self.keep).keeps(steps - 1):
            state.keep()

    def draw(self, state: Chain, sample: int) -> Forward:
        """A kept draw, the latest first and then far apart."""
        return state.draw(sample)

    @property
    def is_chain(self) -> bool:
        """It is."""
        return True

    @property
    def is_under_priors(self) -> bool:
        """It is."""
        return True


def _fit_of(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean log-likelihood of a model, and its accuracy."""
    with evaluating(model), torch.no_grad():
        found = usual_terms(model(batch.inputs), model.likelihood, model, batch, "tile")
    return found.log_lik, found.accuracy
