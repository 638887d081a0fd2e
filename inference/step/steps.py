"""The options of all gradient-based algorithms: learning rates, schedules, clipping and feeding."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from bayes_share.errors import InputError, option, unknown
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.step.objective import (
    Evaluate,
    NegativeLogLikelihood,
    Objective,
    Terms,
    accumulate_gradient,
)
from bayes_share.inference.step.schedules import Schedule, ScheduleName
from bayes_share.models.model import Model
from bayes_share.options.records import NOT_AN_OPTION
from bayes_share.sharing.members_interface import Feed

DEFAULT_RATE = 0.1

DataFeed = Feed | Literal["own", "bootstrap"]
"""How a batch is divided among members; see `Steps`."""


@dataclass(frozen=True)
class Steps:
    """Options for computing and applying gradients of batches.

    Args:
        learning_rate: peak learning rate of base weights, biases and norms. None: 0.1, divided by the steepness of the
            likelihood for real-valued targets or counts, because SGD and chains would otherwise diverge.
        factor_rate: learning rate of the rank-1 factors r and s, as a multiple of `learning_rate`.
        schedule: learning-rate schedule: "cosine", "step" or "constant".
        warmup: fraction of all steps over which the learning rate rises from near 0.
        milestones: milestones of the "step" schedule, as fractions of all steps.
        gamma: factor by which the learning rate is multiplied at each milestone.
        clip_norm: maximum norm of the gradient; larger gradients are scaled down to it. None: no clipping.
        accumulate: number of parts into which each batch is divided (gradient accumulation); only one has to fit into
            memory at a time.
        feed: how a batch is divided among members. "tile": every member gets the whole batch. "split": each gets its
            own part of the batch. "own": each gets its own batch, with its own order and augmentation, at the cost of
            "tile". "bootstrap": as "own", with examples weighted by a bootstrap sample of each member.
        objective: the loss that is minimised, in addition to priors and divergences.
    """

    learning_rate: float | None = None
    factor_rate: float = 0.5
    schedule: ScheduleName = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    clip_norm: float | None = None
    accumulate: int = 1
    feed: DataFeed = "tile"
    objective: Objective = field(default=NegativeLogLikelihood(), metadata=NOT_AN_OPTION)

    def __post_init__(self) -> None:
        self._schedule()
        if self.feed not in _FEEDS:
            raise unknown("feed", self.feed, _FEEDS)
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise InputError(f"the learning rate must be positive and finite, and is {self.learning_rate}")
        check_not_negative(self, "factor_rate")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(f"clip_norm must be positive, and is {self.clip_norm}")
        if self.accumulate < 1:
            raise InputError(f"accumulate must be at least 1, not {self.accumulate}")

    @property
    def highest_rate(self) -> float:
        """The peak learning rate, for a likelihood that is at most as steep as that of classes."""
        return DEFAULT_RATE if self.learning_rate is None else self.learning_rate

    def steepness(self, terms: Terms) -> Tensor | None:
        """Return the likelihood's steepness if the learning rate is divided by it: if no rate was given.

        SGD is stable if its rate is below a few times the reciprocal of the loss's curvature in the parameters. To
        first order, this is the product of the network's part and the likelihood's curvature in the outputs, which is
        at most 1/4 for classes but ``1 / noise²`` for real values. So a rate that suits classes suits real values after
        division by the ratio.

        Returns:
            The steepness on the batch, which may be averaged over parts of it, or None. The divisor of the rate is the
            steepness if it is above 1, otherwise 1.
        """
        return None if self.learning_rate is not None else terms.steepness

    @property
    def model_feed(self) -> Feed:
        """How the model receives a batch: "split" if the batch has a part for each member, otherwise "tile"."""
        return "tile" if self.feed == "tile" else "split"

    def feeding(self, model: Model) -> Feeding:
        """Return how the examples of a batch are assigned to the members of a model.

        Raises:
            InputError: if the members of a single network (MIMO) would all get the same examples.
        """
        if self.feed == "tile" and model.ensemble_size > model.rows_each:
            raise InputError(
                f"members in one network (MIMO) require different examples: set {option('feed')} to own or split"
            )
        is_own = self.feed in ("own", "bootstrap")
        parts = model.ensemble_size if self.model_feed == "split" else 1
        return Feeding(model.ensemble_size if is_own else 1, self.feed == "bootstrap", is_own, parts)

    def rate_at(self, step: int, num_steps: int) -> float:
        """Return the multiple of the learning rate at a step, counted from 0."""
        return self._schedule().at(step, num_steps)

    def add_gradient(self, model: Model, batch: Batch, evaluate: Evaluate | None = None) -> Terms:
        """Add the gradient of the objective to the gradients of its parameters; see `accumulate_gradient`."""
        return accumulate_gradient(self.objective, model, batch, self.model_feed, self.accumulate, evaluate)

    def _schedule(self) -> Schedule:
        return Schedule(self.schedule, self.warmup, self.milestones, self.gamma)


_FEEDS = tuple(name for part in get_args(DataFeed) for name in get_args(part))


def check_not_negative(record: Any, *names: str) -> None:
    """Raise InputError if one of these options of a record is negative."""
    for name in names:
        if not getattr(record, name) >= 0:
            raise InputError(f"{name} must not be negative, and is {getattr(record, name)}")
