"""Greedy selection of ensemble members."""

import torch

from bayes_share.evaluation.log_probabilities import label_log_probs
from bayes_share.evaluation.predictions import Predictions, check_kind
from bayes_share.models.mixture import best_members


def select(predictions: Predictions, k: int) -> list[int]:
    """Select members greedily by the NLL of their mixture.

    Exactly `k` members are selected without replacement. Each step adds the member that minimises the NLL of the mean
    probability over draws and selected members; ties are resolved in favour of the first member. Use predictions on
    validation images, and fit calibration maps on other images, since the scores on the images used for selection are
    biased. `Ensemble.keep` returns the ensemble of the selected members.

    Args:
        predictions: logits ``[draw, member, image, class]`` and labels. The networks of a deep ensemble are members.
            For several labels, the NLL is averaged over the labels.
        k: the number of members to select.

    Returns:
        The indices of the members, in the order of selection.

    Raises:
        InputError: if there is a single member, or k is larger than the number of members.

    Member 1 is the best one. Member 2, the worst one, is right where member 1 is uncertain:

    >>> of_label = torch.tensor([[[0.85, 0.55], [0.8, 0.6], [0.45, 0.95]]])
    >>> logits = torch.stack([of_label, 1 - of_label], -1).log()
    >>> select(Predictions(logits, labels=torch.tensor([0, 0])), 2)
    [1, 2]
    """
    check_kind(predictions)
    problems = [label_log_probs(problem.logits, problem.labels) for problem in predictions.problems()]
    return best_members(torch.cat(problems, -1), k)
