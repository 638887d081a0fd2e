"""Stochastic-gradient Hamiltonian Monte Carlo: posterior samples of all parameters from noisy gradient steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Feeding, Forward, GradientMethod, StepInfo
from bayes_share.inference.draws.thinning import check_thinning
from bayes_share.inference.step.chain import GradientChain
from bayes_share.inference.step.position import clip
from bayes_share.inference.step.starts import check_members_will_differ
from bayes_share.inference.step.steps import Steps
from bayes_share.options.records import Flat


@dataclass(frozen=True, init=False)
class SGHMC(Flat, GradientMethod[GradientChain]):
    """Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin 2014, arXiv 1402.4102).

    Samples all parameters that have a prior from their posterior. With the potential ``U = -log p(y, θ)``, the step
    size ``η = learning_rate / num_data`` and the friction α, a step is (their eq. 15, without a correction for the
    noise of mini-batches)

        v ← (1 - α) v - η ∇U + √(2 α η temperature) · N(0, 1),        θ ← θ + v.

    This is SGD with the same learning rate and momentum 1 - α on the loss per example, plus noise. The gradient of a
    batch is an estimate of the gradient of all data. For a quadratic U of curvature h and full-batch gradients, the
    chain has the variance ``(temperature / h) / (1 - η h / (2 (2 - α)))``, which is slightly too large for small step
    sizes.

    Shared parameters are sampled from the posterior under the mean of the members' log-likelihoods. A member's own
    parameters are sampled from the posterior under that member's log-likelihood, given the shared ones. Parameters with
    bounded support are sampled in unbounded coordinates. Trained parameters without a prior are point estimates, which
    take the same steps without noise and prior.

    Args:
        steps: learning rates, clipping and the like; each option can be passed by its own name. The learning rate is
            that of SGD with momentum ``1 - friction`` on the mean loss: num_data times the step size η. With a schedule
            that ends at 0, the chain stops moving. A default rate is adapted during burn-in only.
        friction: fraction of the velocity lost in each step, above 0 and at most 1 (Langevin dynamics).
        temperature: temperature of the sampled posterior, p(θ | y)^(1 / temperature); 0: no noise.
        burn_in: fraction of all steps before the first sample is kept.
        keep: number of samples to keep, evenly spaced over the steps after `burn_in`; each is a copy of the network.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16, "epochs": 100})

    steps: Steps = Steps(schedule="constant")  # noqa: RUF009 (frozen)
    friction: float = 0.1
    temperature: float = 1.0
    burn_in: float = 0.5
    keep: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.friction <= 1:
            raise InputError(f"the friction must be above 0 and at most 1, and is {self.friction}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"the temperature must be finite and not negative, and is {self.temperature}")
        check_thinning("burn_in", self.burn_in, self.keep)

    def init(self, build: Build, num_data: int | float, num_steps: int) -> GradientChain:
        """Return a chain at a new model in training mode, with velocity 0.

        Raises:
            InputError: if no parameter has a prior, a prior is hierarchical, an initial value is outside its prior's
                support, or the members are equal and would stay equal.
        """
        model = build().train()
        if self.temperature == 0:
            check_members_will_differ(model, self.steps.feed)
        chain = GradientChain.start(
            model, num_data, num_steps, self.steps.rate_at, self.steps.feed, "sghmc", self.burn_in
        )
        chain.velocity = {name: torch.zeros_like(value) for name, value in chain.position.trained.items()}
        return chain

    def feeding(self, state: GradientChain) -> Feeding:
        """Return how `feed` assigns the examples of a batch to members."""
        return self.steps.feeding(state.model)

    def gradient(self, state: GradientChain, batch: Batch) -> StepInfo:
        """Compute the gradient of the potential, including the prior."""
        return state.find_gradients(self.steps, batch)

    def gradients(self, state: GradientChain) -> list[Tensor]:
        """Return the gradients of the potential, divided by num_data; the steepness as in `MAP`."""
        return state.averaged

    @torch.no_grad()
    def update(self, state: GradientChain) -> Tensor:
        """Take a step of the chain with noise."""
        clip(state.gradients, self.steps.clip_norm)
        rate, position = state.adapt(self.steps), state.position
        rates = {"base": rate, "member": rate, "factor": rate * self.steps.factor_rate}
        noise = 2 * self.friction * self.temperature / position.num_data
        scales = {kind: (rate * noise).sqrt() for kind, rate in rates.items()}
        sampled = position.sampled if self.temperature > 0 else set()
        for name, gradient in state.gradients.items():
            velocity, kind = state.velocity[name], position.kinds[name]
            velocity.mul_(1 - self.friction).sub_(gradient * rates[kind])
            if name in sampled:
                velocity.add_(torch.randn_like(velocity) * scales[kind])
        state.move(state.velocity)
        return rate

    def after_step(self, state: GradientChain, steps: int) -> None:
        """Keep a sample if one is due."""
        state.keep(self.burn_in, self.keep, steps)

    def draw(self, state: GradientChain, sample: int) -> Forward:
        """Return a kept sample, the latest first, or the current position if there are no samples yet."""
        return state.draw(sample)

    @property
    def is_chain(self) -> bool:
        """Whether draws are the kept samples of a Markov chain: True."""
        return True

    @property
    def is_under_priors(self) -> bool:
        """Whether the algorithm samples with priors on all parameters: True."""
        return True

    def tempering(self, num_data: int | float) -> str | None:
        """Return the temperature if it is not 1."""
        return None if self.temperature == 1 else f"temperature {self.temperature:g}"
