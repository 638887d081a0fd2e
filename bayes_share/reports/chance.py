"""Whether a run predicts more accurately than the most frequent class."""

import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.evaluation.positions import terms_by_example
from bayes_share.evaluation.seed_statistics import estimate
from bayes_share.reports.results import Result

_FEWEST = 20  # examples, below which hardly any difference is significant


def at_chance(run: Result, right: Float64[Tensor, "example"]) -> str | None:
    """Return a sentence if a run is not significantly more accurate than a constant prediction; None if it is.

    The constant prediction is the most frequent class of the test examples, or of each label. The accuracies are
    compared by paired differences over examples.

    Args:
        run: the run.
        right: for each example, the fraction of its predictions that are right.
    """
    if len(right) < _FEWEST:
        return None
    constant = torch.stack(
        [
            terms_by_example((problem.labels == problem.labels.mode().values).double().cpu(), problem.examples)
            for _, problem in run.problems
        ]
    ).mean(0)
    if constant.mean() == 1:  # a single class, which nothing can predict better
        return None
    gap = estimate((right - constant).tolist())
    if gap.mean > 0 and gap.is_clear():
        return None
    whose = " of each label" if len(run.problems) > 1 else ""
    return (
        f"The accuracy of {run.name}, {right.mean().item():.1%}, is not significantly above that of always predicting "
        f"the most frequent class{whose}, {constant.mean().item():.1%}: such predictions may be calibrated, but say "
        "little about single examples."
    )
