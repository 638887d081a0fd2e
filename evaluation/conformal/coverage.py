"""What conformal sets and intervals come to on test examples: coverage overall and of groups, with its intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.bootstrap_intervals import bootstrap_mean
from bayes_share.evaluation.checks import check_labels
from bayes_share.evaluation.seed_statistics import Interval

_OUTSIDE = 0.025  # at each end of an interval
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


@dataclass(frozen=True)
class IntervalCoverage:
    """What intervals come to.

    Args:
        overall: of all examples.
        width: the mean width, with its bootstrap interval of 95 %; infinite where some interval is.
        by_width: of thirds of the examples by the width of their intervals, under the widths that they reach from and
            to, the narrowest first; fewer groups where many are of one width.
    """

    overall: Group
    width: Interval
    by_width: Mapping[tuple[float, float], Group]


def interval_coverage(
    lower: Float[Tensor, "example *target"],
    upper: Float[Tensor, "example *target"],
    targets: Float[Tensor, "example *target"],
) -> IntervalCoverage:
    """How often intervals hold the target, ends included, and how wide they are.

    Where examples have several targets, coverage and width of an example are means over them, and intervals of coverage
    are by the bootstrap over examples.

    Args:
        lower: ends of the intervals.
        upper: likewise; below the lower ones where an interval is empty, whose width is 0.
        targets: of examples on which nothing was calibrated.

    Raises:
        InputError: ends and targets of different shape, or no examples.

    >>> lower, upper = torch.zeros(3), torch.tensor([1.0, 2.0, 6.0])
    >>> found = interval_coverage(lower, upper, torch.tensor([0.5, 3.0, 3.0]))
    >>> round(found.overall.coverage.value, 4), found.width.value, [*found.by_width]
    (0.6667, 3.0, [(1.0, 1.0), (2.0, 2.0), (6.0, 6.0)])
    """
    if not (lower.shape == upper.shape == targets.shape) or not targets.numel():
        raise InputError(
            f"ends and targets must be of one shape, and are {list(lower.shape)}, {list(upper.shape)} and "
            f"{list(targets.shape)}"
        )
    low, high, wanted = (each.double().cpu() for each in (lower, upper, targets))
    held = ((low <= wanted) & (wanted <= high)).double().reshape(len(wanted), -1)
    widths = (high - low).clamp(min=0).reshape(len(wanted), -1).mean(1)
    group = _group if held.shape[1] == 1 else _group_of_several
    ordered = widths.float().sort().values  # equal widths are equal, whatever float64 made of them
    ends = ordered[[round(len(ordered) * third / 3) - 1 if len(ordered) > 2 else -1 for third in (1, 2)]]
    third = torch.bucketize(widths.float(), ends)
    by_width = {}
    for number in third.unique():
        chosen = third == number
        of_third = widths[chosen]
        by_width[of_third.min().item(), of_third.max().item()] = group(held[chosen].mean(1))
    return IntervalCoverage(group(held.mean(1)), bootstrap_mean(widths), by_width)


def _group_of_several(shares: Float[Tensor, "example"]) -> Group:
    return Group(len(shares), bootstrap_mean(shares))


def _by_size(covered: Bool[Tensor, "example"], sizes: Int64[Tensor, "example"]) -> dict[str, Group]:
    found, least = {}, 0
    for most in (*_LARGEST_OF_GROUPS, math.inf):
        chosen = (sizes >= least) & (sizes <= most)
        if chosen.any():
            name = f"{least}" if least == most else f"{least} or more" if most == math.inf else f"{least}–{most}"
            found[name] = _group(covered[chosen])
        least = int(most) + 1 if most != math.inf else least
    return found


def _group(covered: Shaped[Tensor, "example"]) -> Group:
    """With the interval of Clopper and Pearson (1934), which holds its level at any count."""
    from scipy.special import betaincinv

    hits, count = int(covered.sum()), len(covered)
    share = hits / count
    low = float(betaincinv(hits, count - hits + 1, _OUTSIDE)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - _OUTSIDE)) if hits < count else 1.0
    return Group(count, Interval(share, low, high, math.sqrt(share * (1 - share) / count)))
