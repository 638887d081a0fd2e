"""Stochastic-gradient Langevin dynamics: posterior samples of all parameters, with decreasing step sizes."""

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
from bayes_share.inference.step.steps import Steps, check_not_negative
from bayes_share.options.records import Flat

_MAX_UNSLOWED_STEEPNESS = 4.0
"""The steepness of the likelihood up to which the default learning rate is not reduced.

It is larger than for SGHMC, whose momentum makes steps about ten times as long.
"""


@dataclass(frozen=True, init=False)
class SGLD(Flat, GradientMethod[GradientChain]):
    """Stochastic-gradient Langevin dynamics (Welling and Teh 2011, ICML, equation 4).

    Samples all parameters that have a prior from their posterior. With the potential ``U = -log p(y, θ)`` and the step
    size ``ε = 2 learning_rate / num_data``, a step is

        θ ← θ - ε/2 ∇U + √(ε temperature) · N(0, 1),

    which is SGD with the same learning rate on the loss per example, plus noise. In addition to the schedule, the step
    size decreases as ``(1 + t / settling)^-exponent``, where t is the fraction of steps taken. This reduces the
    discretisation bias and the uncorrected noise of mini-batches. Members, and parameters without a prior, are treated
    as in `SGHMC`.

    Args:
        steps: learning rates, clipping and the like; each option can be passed by its own name.
        exponent: exponent of the decrease of the step size; 0: no decrease.
        settling: fraction of all steps after which the step size has decreased by a factor of 2^exponent.
        temperature: temperature of the sampled posterior, p(θ | y)^(1 / temperature); 0: no noise.
        burn_in: fraction of all steps before the first sample is kept.
        keep: number of samples to keep, evenly spaced over the steps after `burn_in`; each is a copy of the network.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16, "epochs": 100})

    steps: Steps = Steps(schedule="constant")  # noqa: RUF009 (frozen)
    exponent: float = 0.33
    settling: float = 0.1
    temperature: float = 1.0
    burn_in: float = 0.5
    keep: int = 16

    def __post_init__(self) -> None:
        check_not_negative(self, "exponent")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"the temperature must be finite and not negative, and is {self.temperature}")
        if not self.settling > 0:
            raise InputError(f"settling must be a positive fraction of all steps, and is {self.settling}")
        check_thinning("burn_in", self.burn_in, self.keep)

    def rate_at(self, step: int, num_steps: int) -> float:
        """Return the multiple of the learning rate at a step, counted from 0."""
        decrease = (1 + step / (self.settling * max(1, num_steps))) ** -self.exponent
        return self.steps.rate_at(step, num_steps) * decrease

    def init(self, build: Build, num_data: int | float, num_steps: int) -> GradientChain:
        """Return a chain at a new model in training mode.

        Raises:
            InputError: if no parameter has a prior, a prior is hierarchical, an initial value is outside its prior's
                support, or the members are equal and would stay equal.
        """
        model = build().train()
        if self.temperature == 0:
            check_members_will_differ(model, self.steps.feed)
        return GradientChain.start(model, num_data, num_steps, self.rate_at, self.steps.feed, "sgld", self.burn_in)

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
        position, changes = state.position, {}
        base_rate = state.adapt(self.steps, _MAX_UNSLOWED_STEEPNESS)
        for name, gradient in state.gradients.items():
            rate = base_rate * (self.steps.factor_rate if position.kinds[name] == "factor" else 1)
            changes[name] = -rate * gradient
            if name in position.sampled:
                changes[name].add_(
                    torch.randn_like(gradient) * (2 * rate * self.temperature / position.num_data).sqrt()
                )
        state.move(changes)
        return base_rate

    def after_step(self, state: GradientChain, steps: int) -> None:
        """Keep a sample if one is due."""
        state.keep(self.burn_in, self.keep, steps)

    def draw(self, state: GradientChain, sample: int) -> Forward:
        """Return a kept sample, the latest first, or the current position if there are no samples yet."""
        return state.draw(sample)

    def tempering(self, num_data: int | float) -> str | None:
        """Return the temperature if it is not 1."""
        return None if self.temperature == 1 else f"temperature {self.temperature:g}"

    @property
    def is_chain(self) -> bool:
        """Whether draws are the kept samples of a Markov chain: True."""
        return True

    @property
    def is_under_priors(self) -> bool:
        """Whether the algorithm samples with priors on all parameters: True."""
        return True
