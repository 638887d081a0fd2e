"""Out-of-distribution scores; larger values indicate that an image is more likely to be out of distribution.

They are computed from the outputs of any number of draws and members, which are the components of a mixture. Scores
based on probabilities use the mixture. Scores based on logits are averaged over the components, since the mixture has
no logits of its own.
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
_AT_A_TIME = 500  # images in a chunk of distances to all training images


def ood_scores(
    outputs: Outputs, train_features: Float32[Tensor, "member train feature"] | None = None
) -> dict[str, Float64[Tensor, "image"]]:
    """Compute all available scores, by name.

    - ``max-probability``: 1 minus the largest probability of the mixture (Hendrycks and Gimpel 2017, arXiv 1610.02136).
    - ``entropy``: the entropy of the mixture, in nats.
    - ``mutual-information``: the mutual information of class and component, which is the entropy of the mixture minus
      the mean entropy of the components (arXiv 1112.5745, eq. 2); only for several components.
    - ``energy``: minus log-sum-exp of the logits, averaged over components (Liu et al. 2020, arXiv 2010.03759, eq. 4,
      at temperature 1).
    - ``max-logit``: minus the largest logit, averaged over components (Hendrycks et al. 2022, arXiv 1911.11132).
    - ``k-nn``: distance of the features to the k-th nearest training image, averaged over members (Sun et al. 2022,
      arXiv 2204.06507), with k = 50 or the number of training images if it is smaller; only if there are features.

    For a Bernoulli likelihood, each label is a two-class problem with the logits 0 and z, and all scores except
    ``k-nn`` are averaged over the labels. ``energy`` is then the score of Wang et al. 2021, arXiv 2111.14559, eq. 4,
    divided by the number of labels.

    Args:
        outputs: outputs for the images.
        train_features: features of training images by the same members.

    Raises:
        InputError: if the training features are not finite, or have other members or another length than the features
            of the outputs.

    >>> sure, unsure = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 0.0])
    >>> found = ood_scores(Outputs(torch.stack([sure, unsure])[None, None]))
    >>> list(found)
    ['max-probability', 'entropy', 'energy', 'max-logit']
    >>> found["entropy"]
    tensor([0.0901, 0.6931], dtype=torch.float64)
    """
    check_kind(outputs, Outputs)
    each = [_categorical_scores(problem) for problem in outputs.problems()]
    scores = {name: torch.stack([found[name] for found in each]).mean(0) for name in each[0]}
    if outputs.features is not None and train_features is not None:
        scores["k-nn"] = nearest_distance(outputs.features, train_features)
    return scores


def _categorical_scores(outputs: Outputs) -> dict[str, Float64[Tensor, "image"]]:
    """Compute the scores of categorical outputs."""
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
    """Compute the Euclidean distance to the k-th nearest training image, averaged over members.

    Args:
        features: features of the images.
        train_features: features of training images by the same members.
        k: the rank of the neighbour; the farthest one if there are fewer than k training images.

    Raises:
        InputError: if k is less than 1, or the training features are not finite or have other members or another
            length.

    >>> train = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    >>> nearest_distance(torch.tensor([[[1.0, 0.0]]]), train, k=2)
    tensor([0.8944], dtype=torch.float64)
    """
    if k < 1:
        raise InputError(f"k, the number of the neighbour, must be at least 1, and is {k}")
    members, _, length = features.shape
    if train_features.ndim != 3 or train_features.shape[::2] != (members, length):
        raise InputError(
            f"the features of training images have the shape {list(train_features.shape)}, but must have {members} "
            f"members and length {length}, like the features of the images"
        )
    check_features(train_features, members, train_features.shape[1])
    k = min(k, train_features.shape[1])
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for own, train in zip(features.double(), train_features.double(), strict=True):
        distances = (torch.cdist(part, train) for part in own.split(_AT_A_TIME))
        total += torch.cat([part.topk(k, largest=False).values[:, -1] for part in distances])
    return total / members
