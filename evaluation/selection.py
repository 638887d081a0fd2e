"""Which members of a large ensemble are worth keeping."""

import torch

from bayes_share.evaluation.predictions import Predictions, check_kind, label_log_probs
from bayes_share.models.mixture import best_members


def select(predictions: Predictions, k: int) -> list[int]:
    """Choose members, one by one, by what each adds to the mixture of those chosen before.

    Exactly `k` are chosen, without replacement: in each step the one with which the mean probability over draws and
    chosen members has the lowest NLL, and of equal ones the first. Give predictions on validation images, and fit
    calibration maps on others: on the images that members were chosen on, they look better than they are.
    `Ensemble.keep` is the ensemble of them alone.

    Args:
        predictions: logits ``[draw, member, image, class]`` and labels; the networks of a deep ensemble are members. Of
            several labels the NLL is the mean over the labels.
        k: how many are chosen.

    Returns:
        Their numbers, in the order in which they were chosen.

    Raises:
        InputError: one network, or more members to choose than there are.

    Member 1 is the best one, and member 2, the worst, knows what it does not:

    >>> of_label = torch.tensor([[[0.85, 0.55], [0.8, 0.6], [0.45, 0.95]]])
    >>> logits = torch.stack([of_label, 1 - of_label], -1).log()
    >>> select(Predictions(logits, labels=torch.tensor([0, 0])), 2)
    [1, 2]
    """
    check_kind(predictions)
    problems = [label_log_probs(problem.logits, problem.labels) for problem in predictions.problems()]
    return best_members(torch.cat(problems, -1), k)
