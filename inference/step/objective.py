"""The objective of a step, and its gradient over a batch, computed part by part."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, StepInfo
from bayes_share.models.likelihoods import Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing.members_interface import Feed
from bayes_share.tensors.trees import each_tensor

Evaluate = Callable[[Any], tuple[Tensor, Likelihood]]
"""Maps inputs ``[part, ...]`` to outputs ``[member, part, ...]`` and the likelihood, both under the same draw."""


@dataclass(frozen=True, eq=False)
class Terms:
    """Means over members and examples.

    Args:
        loss: the minimised loss, without priors and KL divergences; has a gradient.
        log_lik: the log-likelihood, in nats.
        accuracy: fraction of the examples whose most probable class is the target; NaN without classes.
        known: fraction of the examples that the accuracy is computed on. None: all.
        steepness: the steepness of the likelihood, see `Likelihood.steepness`. None: at most that of classes, or
            unknown.
    """

    loss: Float[Tensor, ""]
    log_lik: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]
    known: Float[Tensor, ""] | None = None
    steepness: Float[Tensor, ""] | None = None

    @property
    def correct_and_known(self) -> tuple[Tensor, Tensor]:
        """The correct and the known examples as fractions of all examples; both are 0 if the accuracy is NaN."""
        known = torch.ones_like(self.accuracy) if self.known is None else self.known
        return (self.accuracy * known).nan_to_num(), known.masked_fill(self.accuracy.isnan(), 0.0)

    def info(self, loss: Tensor, kl: Tensor, learning_rate: Tensor) -> StepInfo:
        """Return the diagnostics of a step with these terms."""
        return StepInfo(loss, self.log_lik, kl, *self.correct_and_known, learning_rate)


@runtime_checkable
class Objective(Protocol):
    """The loss that a step minimises on a batch, without priors and KL divergences: a frozen record of numbers."""

    def terms(self, evaluate: Evaluate, model: Model, batch: Batch, feed: Feed) -> Terms:
        """Compute the loss of a part of a batch, with diagnostics.

        Args:
            evaluate: runs the network under the draw of the step. It may also be called on other inputs.
            model: arranges the targets to match the outputs.
            batch: the part, with the weights of its examples in the mean.
            feed: how members are fed.
        """


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """The mean negative log-likelihood per member and example, or the mean loss that a likelihood defines instead."""

    def terms(self, evaluate: Evaluate, model: Model, batch: Batch, feed: Feed) -> Terms:
        """See `Objective`."""
        outputs, likelihood = evaluate(batch.inputs)
        return usual_terms(outputs, likelihood, model, batch, feed)


def usual_terms(outputs: Tensor, likelihood: Likelihood, model: Model, batch: Batch, feed: Feed) -> Terms:
    """Return the terms of `NegativeLogLikelihood` from the outputs for a part of a batch."""
    targets = model.targets(batch.targets, feed)
    losses, log_liks = likelihood.losses(outputs, targets)
    loss, log_lik = (mean(values, model, batch, feed) for values in (losses, log_liks.detach()))
    correct = likelihood.correct(outputs.detach(), targets).to(log_lik.dtype)
    return Terms(
        loss, log_lik, *known_mean(correct, model, batch, feed), likelihood.steepness(outputs.detach(), targets)
    )


def mean(values: Float[Tensor, "member part"], model: Model, batch: Batch, feed: Feed) -> Float[Tensor, ""]:
    """Return the weighted mean over members and examples of a part of a batch."""
    if batch.weights is None or batch.counted is None:
        return values.mean()
    weights, counts = (model.targets(each, feed) for each in (batch.weights, batch.counted))
    # 0 if all examples of the part are padding
    return (values * weights.to(values.dtype)).sum() / (counts.sum() + ~counts.any()).to(values.dtype)


def known_mean(
    values: Float[Tensor, "member part"], model: Model, batch: Batch, feed: Feed
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean of the values that are not NaN, and their fraction."""
    known = mean((~values.isnan()).to(values.dtype), model, batch, feed)
    return mean(values.nan_to_num(), model, batch, feed) / known, known


def joined(parts: Sequence[tuple[Terms, float | Tensor]]) -> Terms:
    """Combine the terms of parts of a batch, each with its share, into those of the batch."""
    if len(parts) == 1:
        return parts[0][0]
    sums = [torch.stack([terms.loss, terms.log_lik, *terms.correct_and_known]) * share for terms, share in parts]
    loss, log_lik, correct, known = torch.stack(sums).sum(0)
    steepness = [terms.steepness * share for terms, share in parts if terms.steepness is not None]
    return Terms(loss, log_lik, correct / known, known, torch.stack(steepness).sum() if steepness else None)


def accumulate_gradient(
    objective: Objective,
    model: Model,
    batch: Batch,
    feed: Feed,
    parts: int,
    evaluate: Evaluate | None = None,
) -> Terms:
    """Add the gradient of an objective to the gradients of its parameters.

    Args:
        objective: the objective.
        model: gives the number of members.
        batch: the batch, which is divided into parts.
        feed: how members are fed.
        parts: number of parts. One part is in memory at a time.
        evaluate: the network and the likelihood under a draw, fed as `feed` says. None: the model with its parameters.

    Returns:
        The terms of the whole batch, without gradients.
    """
    if evaluate is None:
        evaluate = lambda x: (model(x, feed), model.likelihood)  # noqa: E731
    found = []
    for part, share in micro_batches(batch, parts, model.ensemble_size if feed == "split" else 1):
        terms = objective.terms(evaluate, model, part, feed)
        loss = terms.loss if parts == 1 else terms.loss * share
        with torch.autocast(loss.device.type, enabled=False):  # so that gradients have the dtype of their parameters
            loss.backward()
        found.append((replace(terms, loss=terms.loss.detach()), share))
    return joined(found)


def mean_of(draws: Sequence[Terms]) -> Terms:
    """Return the mean of terms over the draws of a step."""
    return joined([(terms, 1 / len(draws)) for terms in draws])


def micro_batches(batch: Batch, parts: int, members: int = 1) -> Iterator[tuple[Batch, float | Tensor]]:
    """Divide a batch into parts that fit into memory one at a time; yield each with its share of the batch.

    A batch that is split among members is divided within each member's part, so that every member gets the same
    examples for any number of parts.

    Raises:
        InputError: if the batch size is not divisible.
    """
    if parts == 1:
        yield batch, 1.0
        return
    size = len(batch.targets)
    if size % (parts * members):
        among = f" for each of {members} members" if members > 1 else ""
        raise InputError(
            f"a batch of {size} examples cannot be divided into {parts} parts for gradient accumulation{among}"
        )
    for rows in torch.arange(size, device=batch.targets.device).view(members, parts, -1).unbind(1):
        part: Batch = each_tensor(lambda leaf: leaf[rows.flatten()], batch)  # noqa: B023 (called at once)
        if batch.counted is None or part.counted is None:
            yield part, 1 / parts
        else:
            yield part, part.counted.sum() / (batch.counted.sum() + ~batch.counted.any())
