"""What conformal sets come to on test examples: coverage overall, by class and by size, with binomial intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_labels
from bayes_share.evaluation.intervals import bootstrap_mean
from bayes_share.evaluation.repeats import Interval

_LARGEST_OF_GROUPS = (0, 1, 2, 3, 4, 10, 100)


@dataclass(frozen=True)
class Group:
    """Some examples.

    Args:
        count: how many there are.
        coverage: the share of them whose set holds the right class, with its interval of 95 %.
    """

    count: int
    coverage: Interval


@dataclass(frozen=True)
class SetCoverage:
    """What sets come to.

    Args:
        overall: of all examples.
        size: the mean number of classes in a set, with its bootstrap interval of 95 %.
        by_class: of the examples of each class that occurs.
        by_size: of the examples whose sets are of a size, such as "2" or "5–10".
    """

    overall: Group
    size: Interval
    by_class: Mapping[int, Group]
    by_size: Mapping[str, Group]


def set_coverage(sets: Bool[Tensor, "example class"], labels: Int64[Tensor, "example"]) -> SetCoverage:
    """How often sets hold the right class, and how large they are.

    Conformal prediction promises the coverage of all examples together. That of a class or of a size may be another,
    which is what these groups are for.

    Args:
        sets: the classes in each example's set, as `ConformalSets` gives them.
        labels: the right classes, of examples on which nothing was calibrated.

    Raises:
        InputError: sets of another type, no examples, or labels outside the classes.

    >>> sets = torch.tensor([[True, False], [True, True], [False, True], [True, False]])
    >>> found = set_coverage(sets, torch.tensor([0, 0, 1, 1]))
    >>> found.overall.coverage.value, found.size.value, found.by_class[1].coverage.value, found.by_size["2"].count
    (0.75, 1.25, 0.5, 1)
    """
    if sets.dtype != torch.bool or sets.ndim != 2 or not len(sets):
        raise InputError(f"sets must be [example, class] of booleans, and are {list(sets.shape)} of {sets.dtype}")
    check_labels(labels, *sets.shape)
    sets, labels = sets.cpu(), labels.cpu()
    covered, sizes = sets.gather(1, labels[:, None]).squeeze(1), sets.sum(1)
    by_class = {int(label): _group(covered[labels == label]) for label in labels.unique()}
    return SetCoverage(_group(covered), bootstrap_mean(sizes.double()), by_class, _by_size(covered, sizes))


def _by_size(covered: Bool[Tensor, "example"], sizes: Int64[Tensor, "example"]) -> dict[str, Group]:
    found, least = {}, 0
    for most in (*_LARGEST_OF_GROUPS, math.inf):
        chosen = (sizes >= least) & (sizes <= most)
        if chosen.any():
            name = f"{least}" if least == most else f"{least} or more" if most == math.inf else f"{least}–{most}"
            found[name] = _group(covered[chosen])
        least = int(most) + 1 if most != math.inf else least
    return found


def _group(covered: Bool[Tensor, "example"]) -> Group:
    """With the interval of Clopper and Pearson (1934), which holds its level at any count."""
    from scipy.stats import binomtest

    hits, count = int(covered.sum()), len(covered)
    share = hits / count
    low, high = binomtest(hits, count).proportion_ci(0.95, method="exact")
    return Group(count, Interval(share, float(low), float(high), math.sqrt(share * (1 - share) / count)))
