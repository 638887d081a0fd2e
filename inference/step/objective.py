"""What the algorithms that follow the gradients of batches have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.mc_dropout.masks import dropout_rate
from bayes_share.inference.step.schedules import Schedule, ScheduleName
from bayes_share.inference.step.updates import micro_batches
from bayes_share.models.likelihood import Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing.kinds import members_equal
from bayes_share.sharing.members import Feed

Evaluate = Callable[[Tensor], tuple[Tensor, Likelihood]]
"""Inputs ``[part, ...]`` to the members' outputs ``[member, part, ...]``, and the likelihood under the same draw."""


@dataclass(frozen=True)
class GradientOptions:
    """How gradients of batches are taken and followed.

    Args:
        learning_rate: of base weights, biases and norms, at its highest.
        factor_rate: learning rate of the rank-1 factors r and s, as a multiple of `learning_rate`.
        schedule: of the learning rate: "cosine", "step" or "constant".
        warmup: part of all steps in which the learning rate climbs from near 0.
        milestones: of the "step" schedule, as parts of all steps.
        gamma: what the learning rate is multiplied by at each milestone.
        clip_norm: largest norm of the gradient; longer ones are scaled down to it. None: no clipping.
        accumulate: parts that each batch is cut into, so that only one has to fit into memory at a time.
        feed: "tile": every member sees every image; "split": each member sees its own part of the batch.
    """

    learning_rate: float = 0.1
    factor_rate: float = 0.5
    schedule: ScheduleName = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    clip_norm: float | None = None
    accumulate: int = 1
    feed: Feed = "tile"

    def __post_init__(self) -> None:
        self._schedule()
        if self.feed not in get_args(Feed):
            raise unknown("feed", self.feed, get_args(Feed))
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"the learning rate must be positive, and is {self.learning_rate}")
        self.check_not_negative("factor_rate")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"the norm to clip gradients to must be positive, and is {self.clip_norm}")
        if self.accumulate < 1:
            raise InputError(f"a batch is cut into at least 1 part to accumulate over, not {self.accumulate}")

    def check(self, state: Any, batch: Batch) -> None:
        """See `Inference`; whatever trains is fine, unless an algorithm says otherwise."""

    def after_step(self, state: Any, steps: int) -> None:
        """Nothing is kept, unless an algorithm says otherwise."""

    def rate_at(self, step: int, num_steps: int) -> float:
        """The multiple of the learning rate at a step, which counts from 0."""
        return self._schedule().at(step, num_steps)

    def accumulate_gradient(
        self,
        model: Model,
        batch: Batch,
        evaluate: Evaluate | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Add the gradient of the mean negative log-likelihood to what it depends on.

        Args:
            model: gives the number of members.
            batch: is cut into parts, as `accumulate` says.
            evaluate: the network and the likelihood under a draw, fed as `feed` says; None: the model as it is.

        Returns:
            The mean log-likelihood and the accuracy, over members and examples.
        """
        if evaluate is None:
            evaluate = lambda x: (model(x, self.feed), model.likelihood)  # noqa: E731
        sums = []
        for (x, y), share in micro_batches(batch, self.accumulate, model.ensemble_size if self.feed == "split" else 1):
            (found, likelihood), targets = evaluate(x), model.targets(y, self.feed)
            log_lik = likelihood.log_lik(found, targets).mean() * share
            with torch.autocast(log_lik.device.type, enabled=False):  # gradients in the dtype of their parameters
                (-log_lik).backward()
            correct = likelihood.correct(found.detach(), targets).nanmean() * share
            sums.append(torch.stack([log_lik.detach(), correct.to(log_lik.dtype)]))
        log_lik, accuracy = torch.stack(sums).sum(0)
        return log_lik, accuracy

    def check_not_negative(self, *names: str) -> None:
        """Raise an InputError where one of these options is negative."""
        for name in names:
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, and is {getattr(self, name)}")

    def _schedule(self) -> Schedule:
        return Schedule(self.schedule, self.warmup, self.milestones, self.gamma)


def check_trainable(model: Model) -> None:
    """Raise an InputError where every parameter of a model is frozen."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("every parameter of the model is frozen: there is nothing to train")


def check_members_will_differ(model: Model, feed: Feed) -> None:
    """Raise an InputError where members are equal and would stay so, because all are fed alike and without noise."""
    has_dropout = any(dropout_rate(module) > 0 for module in model.modules())
    if model.ensemble_size > 1 and feed == "tile" and not has_dropout and members_equal(model):
        raise InputError(
            "all members are equal and see the same images, so they would stay equal: "
            'start the factors with init="normal" or "random_sign", or feed with "split"'
        )
