"""A single chain of the No-U-Turn sampler as an algorithm. `NUTS` is composed of these."""

import math
from dataclasses import dataclass

import torch

from bayes_share.errors import InputError, option
from bayes_share.inference.algorithm import Batch, Build, Forward, StepInfo, Transition
from bayes_share.inference.draws.forward import evaluating
from bayes_share.inference.draws.thinning import Thinning
from bayes_share.inference.methods.nuts.chain import Chain
from bayes_share.inference.step.objective import Terms, usual_terms
from bayes_share.models.model import Model


@dataclass(frozen=True)
class NUTSChain(Transition[Chain]):
    """A chain of the No-U-Turn sampler for one network. The options are those of `NUTS`.

    Args:
        warmup: fraction of all steps used to adapt the sampler; they are not kept.
        keep: maximum number of draws to keep.
        max_tree_depth: maximum tree depth d; a step takes at most 2^d - 1 gradients.
        target_accept: acceptance probability to which the step size is adapted.
    """

    warmup: float
    keep: int
    max_tree_depth: int
    target_accept: float

    def init(self, build: Build, num_data: int | float, num_steps: int) -> Chain:
        """Return a chain at the network's initial values."""
        warmup_steps = Thinning(num_steps, self.warmup, self.keep).first
        return Chain(build(), num_data, num_steps, warmup_steps, self.max_tree_depth, self.target_accept)

    def transition(self, state: Chain, batch: Batch) -> StepInfo:
        """Take one transition.

        Raises:
            InputError: if the batch is not all the data, or has example weights.
        """
        if batch.weights is not None and batch.counts is None:
            raise InputError("nuts does not support example weights, and the batch has weights: omit them")
        seen = len(batch.targets) if batch.counts is None else float(batch.counts.sum())
        if not math.isclose(seen, state.num_data, rel_tol=1e-6):
            raise InputError(
                f"nuts requires all {state.num_data:g} examples in every step, and the batch has {seen:g}: "
                f"set {option('batch_size')} to null (None in Python)"
            )
        loss = state.transition(batch) / state.num_data
        terms = _terms(state.model, batch)
        return terms.info(loss, torch.zeros_like(terms.log_lik), loss.new_tensor(state.step_size))

    def after_step(self, state: Chain, steps: int) -> None:
        """Keep the draw if one is due."""
        if Thinning(state.num_steps, self.warmup, self.keep).keeps(steps - 1):
            state.keep()

    def draw(self, state: Chain, sample: int) -> Forward:
        """Return a kept draw, the latest first and then far apart, or the current position if there is none yet."""
        return state.draw(sample)

    @property
    def is_chain(self) -> bool:
        """Whether draws are the kept samples of a Markov chain: True."""
        return True

    @property
    def is_under_priors(self) -> bool:
        """Whether the algorithm samples with priors on all parameters: True."""
        return True


def _terms(model: Model, batch: Batch) -> Terms:
    """Return the terms of a model on a batch, for the diagnostics."""
    with evaluating(model), torch.no_grad():
        return usual_terms(model(batch.inputs), model.likelihood, model, batch, "tile")
