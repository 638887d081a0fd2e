"""Scores that say how far an image seems to be from what a network was trained on; the larger, the further out.

Each works from the outputs alone, of any number of draws and members, which are the components of a mixture. The scores
of probabilities are those of the mixture; those of logits are means over the components, since logits of a mixture are
none of the networks'.
"""

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_features
from bayes_share.evaluation.predictions import Outputs, check_kind
from bayes_share.evaluation.uncertainty import uncertainty

SCORES = ("max-probability", "entropy", "mutual-information", "energy", "max-logit", "k-nn")
"""The names of all scores."""

_NEIGHBOUR = 50
_AT_A_TIME = 500  # images whose distances to all training images are in memory


def ood_scores(
    outputs: Outputs, train_features: Float32[Tensor, "member train feature"] | None = None
) -> dict[str, Float64[Tensor, "image"]]:
    """All scores that outputs allow, by name.

    - ``max-probability``: 1 minus the largest probability of the mixture (Hendrycks and Gimpel 2017, arXiv 1610.02136).
    - ``entropy``: of the mixture, in nats.
    - ``mutual-information``: of class and component, the entropy of the mixture minus the mean of the components'
      (arXiv 1112.5745, eq. 2); only where there are several components.
    - ``energy``: minus log-sum-exp of the logits, mean over components (Liu et al. 2020, arXiv 2010.03759, eq. 4, at
      temperature 1).
    - ``max-logit``: minus the largest logit, mean over components (Hendrycks et al. 2022, arXiv 1911.11132).
    - ``k-nn``: distance of the features to those of the k-th nearest training image, mean over members (Sun et al.
      2022, arXiv 2204.06507), with k = 50, or as many training images as there are; only where there are features.

    Of a Bernoulli likelihood each label is a problem of two classes, of the logits 0 and z, and all scores but ``k-nn``
    are means over the labels; ``energy`` is then that of Wang et al. 2021, arXiv 2111.14559, eq. 4, over their number.

    Args:
        outputs: of the images.
        train_features: of training images, of the same members.

    Raises:
        InputError: training features of other members or another length than the outputs' features, or not finite.

    >>> sure, unsure = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 0.0])
    >>> found = ood_scores(Outputs(torch.stack([sure, unsure])[None, None]))
    >>> list(found)
    ['max-probability', 'entropy', 'energy', 'max-logit']
    >>> found["entropy"]
    tensor([0.0901, 0.6931], dtype=torch.float64)
    """
    check_kind(outputs, Outputs)
    each = [_of_logits(problem) for problem in outputs.problems()]
    scores = {name: torch.stack([found[name] for found in each]).mean(0) for name in each[0]}
    if outputs.features is not None and train_features is not None:
        scores["k-nn"] = nearest_distance(outputs.features, train_features)
    return scores


def _of_logits(outputs: Outputs) -> dict[str, Float64[Tensor, "image"]]:
    """The scores of categorical outputs."""
    unsure = uncertainty(outputs)
    components = outputs.logits.flatten(0, 1)
    count = len(components)
    scores = {"max-probability": -torch.expm1(outputs.log_probs.amax(-1)), "entropy": unsure.entropy}
    if count > 1:
        scores["mutual-information"] = unsure.mutual_information
    scores["energy"] = -sum(component.double().logsumexp(-1) for component in components) / count
    scores["max-logit"] = -sum(component.double().amax(-1) for component in components) / count
    return scores


def nearest_distance(
    features: Float[Tensor, "member image feature"], train_features: Tensor, k: int = _NEIGHBOUR
) -> Float64[Tensor, "image"]:
    """The Euclidean distance to the k-th nearest of the training images, mean over members.

    Args:
        features: of the images.
        train_features: of training images, of the same members.
        k: which of the neighbours; the furthest where there are fewer.

    Raises:
        InputError: k below 1, training features of other members or another length, or not finite.

    >>> train = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    >>> nearest_distance(torch.tensor([[[1.0, 0.0]]]), train, k=2)
    tensor([0.8944], dtype=torch.float64)
    """
    if k < 1:
        raise InputError(f"k, the number of the neighbour, must be at least 1, and is {k}")
    members, _, length = features.shape
    if train_features.ndim != 3 or train_features.shape[::2] != (members, length):
        raise InputError(
            f"features of training images are {list(train_features.shape)}, but must be of {members} members and "
            f"{length} long, as those of the images"
        )
    check_features(train_features, members, train_features.shape[1])
    k = min(k, train_features.shape[1])
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for own, train in zip(features.double(), train_features.double(), strict=True):
        distances = (torch.cdist(part, train) for part in own.split(_AT_A_TIME))
        total += torch.cat([part.topk(k, largest=False).values[:, -1] for part in distances])
    return total / members
