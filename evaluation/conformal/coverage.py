"""Coverage of conformal sets and intervals on test examples, overall and by group, with confidence intervals."""

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

_OUTSIDE = 0.025  # probability outside each end of a 95 % interval
_LARGEST_OF_GROUPS = (0, 1, 2, 3, 4, 10, 100)  # largest set size of each group


@dataclass(frozen=True)
class Group:
    """The coverage of a group of examples.

    Args:
        count: the number of examples.
        coverage: the share of examples whose set or interval contains the truth, with a 95 % interval.
    """

    count: int
    coverage: Interval


@dataclass(frozen=True)
class SetCoverage:
    """The coverage and size of conformal sets.

    Args:
        overall: coverage of all examples.
        size: the mean number of classes in a set, with a 95 % bootstrap interval.
        by_class: coverage of the examples of each class that occurs.
        by_size: coverage of the examples with sets of a size, such as "2" or "5–10".
    """

    overall: Group
    size: Interval
    by_class: Mapping[int, Group]
    by_size: Mapping[str, Group]


def set_coverage(sets: Bool[Tensor, "example class"], labels: Int64[Tensor, "example"]) -> SetCoverage:
    """Compute how often sets contain the right class, and how large they are.

    The guarantee of conformal prediction applies to all examples together. The coverage of a class or of a set size can
    differ from it, and is therefore reported separately.

    Args:
        sets: whether each class is in the set of each example, as returned by `ConformalSets`.
        labels: the right classes, of examples not used for calibration.

    Raises:
        InputError: if the sets are not a boolean matrix, there are no examples, or a label is not a class.

    >>> sets = torch.tensor([[True, False], [True, True], [False, True], [True, False]])
    >>> found = set_coverage(sets, torch.tensor([0, 0, 1, 1]))
    >>> found.overall.coverage.value, found.size.value, found.by_class[1].coverage.value, found.by_size["2"].count
    (0.75, 1.25, 0.5, 1)
    """
    if sets.dtype != torch.bool or sets.ndim != 2:
        raise InputError(
            f"sets must be booleans [example, class], and have shape {list(sets.shape)} and type {sets.dtype}"
        )
    if not len(sets):
        raise InputError("there are no examples")
    check_labels(labels, *sets.shape)
    sets, labels = sets.cpu(), labels.cpu()
    covered, sizes = sets.gather(1, labels[:, None]).squeeze(1), sets.sum(1)
    by_class = {int(label): _group(covered[labels == label]) for label in labels.unique()}
    return SetCoverage(_group(covered), bootstrap_mean(sizes.double()), by_class, _by_size(covered, sizes))


@dataclass(frozen=True)
class IntervalCoverage:
    """The coverage and width of conformal intervals.

    Args:
        overall: coverage of all examples.
        width: the mean width, with a 95 % bootstrap interval; infinite if any interval is infinite.
        by_width: coverage of thirds of the examples by interval width, narrowest first. The keys are the smallest and
            largest width of each third. There are fewer groups if many widths are equal.
    """

    overall: Group
    width: Interval
    by_width: Mapping[tuple[float, float], Group]


def interval_coverage(
    lower: Float[Tensor, "example *target"],
    upper: Float[Tensor, "example *target"],
    targets: Float[Tensor, "example *target"],
) -> IntervalCoverage:
    """Compute how often closed intervals contain the target, and how wide they are.

    If examples have several targets, coverage and width of an example are means over its targets, and the intervals of
    the coverage are bootstrapped over examples.

    Args:
        lower: lower ends of the intervals.
        upper: upper ends. An interval whose upper end is below its lower end is empty and has width 0.
        targets: targets of examples not used for calibration.

    Raises:
        InputError: if the shapes differ, or there are no examples.

    >>> lower, upper = torch.zeros(3), torch.tensor([1.0, 2.0, 6.0])
    >>> found = interval_coverage(lower, upper, torch.tensor([0.5, 3.0, 3.0]))
    >>> round(found.overall.coverage.value, 4), found.width.value, [*found.by_width]
    (0.6667, 3.0, [(1.0, 1.0), (2.0, 2.0), (6.0, 6.0)])
    """
    if not (lower.shape == upper.shape == targets.shape):
        raise InputError(
            f"ends and targets must have the same shape, and have {list(lower.shape)}, {list(upper.shape)} and "
            f"{list(targets.shape)}"
        )
    if not targets.numel():
        raise InputError("there are no examples")
    low, high, wanted = (each.double().cpu() for each in (lower, upper, targets))
    held = ((low <= wanted) & (wanted <= high)).double().reshape(len(wanted), -1)
    widths = (high - low).clamp(min=0).reshape(len(wanted), -1).mean(1)
    group = _group if held.shape[1] == 1 else _group_of_several
    ordered = widths.float().sort().values  # float32, so that equal widths are equal despite rounding
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
    """Compute the coverage of a group with the interval of Clopper and Pearson (1934), which is exact for any count."""
    from scipy.special import betaincinv

    hits, count = int(covered.sum()), len(covered)
    share = hits / count
    low = float(betaincinv(hits, count - hits + 1, _OUTSIDE)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - _OUTSIDE)) if hits < count else 1.0
    return Group(count, Interval(share, low, high, math.sqrt(share * (1 - share) / count)))
