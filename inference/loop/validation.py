"""Scores on validation data after an epoch."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError, named
from bayes_share.inference.algorithm import Batch, Forward, Inference
from bayes_share.inference.draws.pointwise import log_lik_under
from bayes_share.inference.loop.history import OF_MEMBERS
from bayes_share.inference.step.ranks import ALONE, Ranks
from bayes_share.inference.step.same_data import check_same
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.models.pairs import mean_differences
from bayes_share.tensors.trees import digest


def validation_scores(
    algorithm: Inference[Any], state: Any, batches: Iterable[Batch], num_samples: int, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Compute the NLL of the mixture of draws and members, and its accuracy if the target of an example is one class.

    Examples whose targets are all ignored are left out. For several members, the differences between two members are
    added; see `mean_differences`.

    Args:
        algorithm: the algorithm that made the state.
        state: the state. It is not changed.
        batches: the validation data with prepared targets, iterated over once per draw.
        num_samples: number of draws.
        ranks: processes that all score the same state, each on some of the batches.

    Returns:
        ``validation_accuracy``, for classes, and ``validation_nll``, in nats per example. For several members and
        classes also ``validation_disagreement`` and ``validation_kl``.

    Raises:
        InputError: if all targets are ignored, or the order of the data differs between draws or processes.
    """
    draws = [_logits_or_log_lik(algorithm.draw(state, sample), batches, ranks) for sample in range(num_samples)]
    targets = draws[0][1]
    if num_samples > 1 and len({digest(others) for _, others in draws}) > 1:
        raise InputError("the validation data have another order in each pass: use a fixed order")
    found = torch.stack([of_draw for of_draw, _ in draws])
    if found.ndim == 3:
        mixture = found.flatten(0, 1).double().logsumexp(0) - math.log(found.shape[0] * found.shape[1])
        return {"validation_nll": -mixture.mean().item()}
    log_probs, labels = mixture_log_probs(found), targets.long()
    of_members = zip(OF_MEMBERS, mean_differences(found), strict=True) if found.shape[1] > 1 else ()
    return {
        "validation_accuracy": (log_probs.argmax(-1) == labels).double().mean().item(),
        "validation_nll": -log_probs[torch.arange(len(labels)), labels].mean().item(),
        **dict(of_members),
    }


def _logits_or_log_lik(
    forward: Forward, batches: Iterable[Batch], ranks: Ranks
) -> tuple[Float[Tensor, "member batch class"] | Float[Tensor, "member batch"], Tensor]:
    """Return the class logits under a draw, or the log-likelihoods if there are no classes, and the targets.

    Both are of the examples with known targets.
    """
    likelihood = forward.parts[0].model.likelihood
    parts: list[Tensor | None] = []
    targets = []
    for number, (x, y, *_) in enumerate(batches):
        targets.append(y.cpu())
        if not ranks.deals(number):
            parts.append(None)
            continue
        outputs = forward(x)
        logits = likelihood.class_logits(outputs)
        found = log_lik_under(forward, outputs, y) if logits is None else logits
        parts.append(found.cpu().to(torch.promote_types(found.dtype, torch.float32)))
    check_same(ranks, "the validation targets", targets)
    found, wanted = torch.cat([ranks.told(number, part) for number, part in enumerate(parts)], 1), torch.cat(targets)
    with named("validation data"):
        likelihood.check_known(wanted)
    known = likelihood.is_known(wanted)
    return (found, wanted) if bool(known.all()) else (found[:, known], wanted[known])
