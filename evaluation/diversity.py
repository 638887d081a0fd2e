"""Diversity of the members of an ensemble, or of posterior draws."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from bayes_share.evaluation.binary import mean_over_labels
from bayes_share.evaluation.predictions import Predictions, check_kind
from bayes_share.models.mixture import image_parts
from bayes_share.models.pairs import differences, opinions

_MOST_DRAWS = 16


@dataclass(frozen=True, eq=False)
class Diversity:
    """Scores of the individual members, and pairwise differences between them.

    Args:
        accuracy: ``[member]``, accuracy of each member.
        nll: ``[member]``, NLL of each member, in nats.
        disagreement: ``[member, member]``, the share of images for which two members predict different classes.
        kl: ``[member, member]``, the mean over images of ``KL(p_i ‖ p_j)``, in nats, with i as the row.
        effective: the effective number of members, from 1 (all equal) to the number of members (no overlap).
        identical: pairs of members with bitwise equal logits. For an ensemble this indicates an error.
        axis: whether members of an ensemble or draws of a single network were compared.
    """

    accuracy: Float64[Tensor, "member"]
    nll: Float64[Tensor, "member"]
    disagreement: Float64[Tensor, "member member"]
    kl: Float64[Tensor, "member member"]
    effective: float
    identical: list[tuple[int, int]]
    axis: Literal["member", "draw"]


def diversity(predictions: Predictions) -> Diversity:
    """Compare members by their probabilities, averaged over draws.

    If there is one member with several draws, the draws are compared: at most 16 of them, evenly spaced from the first
    to the last. The effective number is the Vendi score (Friedman and Dieng 2022, arXiv 2210.02410, eq. 1) of the
    kernel ``k(i, j) = mean over images of Σ_c √(p_ic p_jc)``: the exponential of the entropy of the eigenvalues of
    ``k / members``. For several labels, all values are means over the labels.

    Args:
        predictions: logits and labels. They are converted to float64 a few images at a time.

    Two members that are certain of different classes:

    >>> logits = torch.tensor([[[[50.0, 0.0]], [[0.0, 50.0]]]])
    >>> found = diversity(Predictions(logits, labels=torch.tensor([0])))
    >>> found.disagreement[0, 1].item(), round(found.kl[0, 1].item(), 4), round(found.effective, 4)
    (1.0, 50.0, 2.0)
    """
    check_kind(predictions)
    each = [_categorical_diversity(problem) for problem in predictions.problems()]
    same = [pair for pair in each[0].identical if all(pair in found.identical for found in each)]
    return replace(mean_over_labels(each), identical=same)


def _categorical_diversity(predictions: Predictions) -> Diversity:
    """Compute the diversity of categorical predictions."""
    logits, labels = predictions.logits, predictions.labels
    num_draws, members_of_a_draw, num_images, _ = logits.shape
    is_one_network = members_of_a_draw == 1 and num_draws > 1
    num_members = min(num_draws, _MOST_DRAWS) if is_one_network else members_of_a_draw
    right, lost = torch.zeros(2, num_members, dtype=torch.float64)
    apart, kl, alike = torch.zeros(3, num_members, num_members, dtype=torch.float64)
    for part, images in _parts(logits, is_one_network):
        found, part_labels = opinions(part), labels[images]
        right += (found.argmax(-1) == part_labels).sum(1)
        lost -= found.gather(-1, part_labels.expand(num_members, -1)[..., None]).sum((1, 2))
        more_apart, more_kl = differences(found)
        apart += more_apart
        kl += more_kl
        roots = (found.flatten(1) / 2).exp()
        alike += roots @ roots.T
    return Diversity(
        accuracy=right / num_images,
        nll=lost / num_images,
        disagreement=apart / num_images,
        kl=(kl / num_images).clamp(min=0),  # negative only through rounding
        effective=_vendi_score(alike / num_images),
        identical=_identical(_parts(logits, is_one_network), num_members),
        axis="draw" if is_one_network else "member",
    )


def _parts(
    logits: Float[Tensor, "draw member image class"], is_one_network: bool
) -> Iterator[tuple[Float[Tensor, "averaged compared part class"], slice]]:
    """Yield all draws for a few images at a time. If draws are compared, at most 16 of them, on the member axis."""
    kept = torch.linspace(0, len(logits) - 1, min(len(logits), _MOST_DRAWS)).round().long()
    for part, images in image_parts(logits):
        yield part[kept].transpose(0, 1) if is_one_network else part, images


def _vendi_score(kernel: Float64[Tensor, "member member"]) -> float:
    weights = torch.linalg.eigvalsh(kernel / len(kernel)).clamp(min=0)
    return torch.special.entr(weights).sum().exp().item()


def _identical(
    parts: Iterable[tuple[Float[Tensor, "draw member part class"], slice]], num_members: int
) -> list[tuple[int, int]]:
    pairs = list(combinations(range(num_members), 2))
    for part, _ in parts:
        pairs = [(i, j) for i, j in pairs if torch.equal(part[:, i], part[:, j])]
        if not pairs:
            break
    return pairs
