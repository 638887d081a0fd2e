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

_BEARABLE = 4.0
"""Steepness that does not slow it: a step without momentum goes a tenth as far as SGHMC's, and may be longer."""


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
        settling: fraction of all steps after which the step size has fallen by a factor of ``2^exponent``.
        temperature: temperature of the sampled posterior, ``p(θ | y) ^ (1 / temperature)``; 0: no noise.
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
            raise InputError(f"the temperature must not be negative, and is {self.temperature}")
        if not self.settling > 0:
            raise InputError(f"settling is a part of all steps and must be positive, and is {self.settling}")
        check_thinning("burn_in", self.burn_in, self.keep)

    def rate_at(self, step: int, num_steps: int) -> float:
        """The multiple of the learning rate at a step, which counts from 0."""
        fallen = (1 + step / (self.settling * max(1, num_steps))) ** -self.exponent
        return self.steps.rate_at(step, num_steps) * fallen

    def init(self, build: Build, num_data: int | float, num_steps: int) -> GradientChain:
        """A fresh model in training mode.

        Raises:
            InputError: no parameter with a prior, a hierarchical prior, a start outside a prior's support, or members
                that are equal and would stay so.
        """
        model = build().train()
        if self.temperature == 0:
            check_members_will_differ(model, self.steps.feed)
        return GradientChain.start(model, num_data, num_steps, self.rate_at, self.steps.feed, "sgld", self.burn_in)

    def feeding(self, state: GradientChain) -> Feeding:
        """As `feed` says."""
        return self.steps.feeding(state.model)

    def gradient(self, state: GradientChain, batch: Batch) -> StepInfo:
        """The gradient of the potential, the prior's part with it."""
        return state.find_gradients(self.steps, batch, _BEARABLE)

    def gradients(self, state: GradientChain) -> list[Tensor]:
        """Those of the potential over num_data."""
        return list(state.gradients.values())

    @torch.no_grad()
    def update(self, state: GradientChain) -> None:
        """Move the chain, with noise."""
        clip(state.gradients, self.steps.clip_norm)
        position, changes = state.position, {}
        for name, gradient in state.gradients.items():
            rate = state.rate(self.steps) * (self.steps.factor_rate if position.kinds[name] == "factor" else 1)
            changes[name] = -rate * gradient
            if name in position.sampled:
                changes[name].add_(
                    torch.randn_like(gradient) * (2 * rate * self.temperature / position.num_data).sqrt()
                )
        state.move(changes)

    def after_step(self, state: GradientChain, steps: int) -> None:
        """Keep a sample, where it is time for one."""
        state.keep(self.burn_in, self.keep, steps)

    def draw(self, state: GradientChain, sample: int) -> Forward:
        """A sample that was kept, the latest first; the chain's position where none was kept yet."""
        return state.draw(sample)

    def tempering(self, num_data: int | float) -> str | None:
        """The temperature."""
        return None if self.temperature == 1 else f"temperature {self.temperature:g}"

    @property
    def is_chain(self) -> bool:
        """It is."""
        return True

    @property
    def is_under_priors(self) -> bool:
        """It is."""
        return True
