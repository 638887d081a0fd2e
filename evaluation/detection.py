"""How well a score tells images that a network was not trained on from images that it was.

All figures follow from how often each value of the score occurs among either kind, so ties count as what they are, and
a bootstrap only draws other counts.
"""

from dataclasses import astuple, dataclass, fields

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.bootstrap_intervals import percentile_interval
from bayes_share.evaluation.checks import check_scores
from bayes_share.evaluation.seed_statistics import Interval
from bayes_share.tensors.seeding import generator


@dataclass(frozen=True)
class Detection:
    """How well out-of-distribution images are told from in-distribution ones.

    Args:
        auroc: the probability that an image from outside has a larger score than one from inside, ties counting half;
            0.5 is chance.
        aupr_in: average precision where the images from inside are to be found, by small scores.
        aupr_out: average precision where the images from outside are to be found, by large scores; chance is their
            share in both for these two.
        fpr95: the share of images from outside that are taken for inside ones by the smallest threshold that accepts at
            least 95 % of the inside ones; an image is accepted whose score is at most the threshold.
    """

    auroc: float
    aupr_in: float
    aupr_out: float
    fpr95: float


def detection(score_in: Float[Tensor, "inside"], score_out: Float[Tensor, "outside"]) -> Detection:
    """Figures of a score, which is larger for images that seem further out.

    Average precision is the mean precision over the images that are to be found, where those of one score are found
    together (the step rule of scikit-learn, without interpolation).

    Args:
        score_in: of images such as the network was trained on.
        score_out: of other images.

    Raises:
        InputError: no image of a kind, or a score that is NaN or infinite; says where.

    >>> detection(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 4.0]))  # 5 1/2 of 6 pairs, 1 of 2 accepted
    Detection(auroc=0.9166666666666666, aupr_in=0.9166666666666666, aupr_out=0.8333333333333333, fpr95=0.5)
    """
    inside, outside, size = _places(score_in, score_out)
    return _figures(inside.bincount(minlength=size), outside.bincount(minlength=size))


def detection_intervals(
    score_in: Float[Tensor, "inside"], score_out: Float[Tensor, "outside"], resamples: int = 200, seed: int = 0
) -> dict[str, Interval]:
    """The figures of `detection` with intervals between the 2.5 and 97.5 % quantiles of the bootstrap over images.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap", chapter 13. The network is given: the
    intervals say how much other images would change, not other seeds of training. With few images they are too narrow:
    in `benchmarks/calibration.py` that of an AUROC covers in 0.91 to 0.96 of samples, but of 0.98 by 20 images of
    either kind in 0.81.

    Args:
        score_in: of images such as the network was trained on.
        score_out: of other images.
        resamples: how often as many images of either kind are drawn with replacement.
        seed: of the draws.

    Returns:
        By the names of `Detection`'s figures.

    Raises:
        InputError: what `detection` refuses, or fewer than 2 resamples.

    >>> inside, outside = torch.linspace(0, 1, 50), torch.linspace(0.5, 1.5, 50)
    >>> interval = detection_intervals(inside, outside)["auroc"]
    >>> 0.75 < interval.low < interval.value < interval.high < 0.95
    True
    """
    if resamples < 2:
        raise InputError(f"an interval requires at least 2 resamples, not {resamples}")
    inside, outside, size = _places(score_in, score_out)
    value = _figures(inside.bincount(minlength=size), outside.bincount(minlength=size))
    rng = generator(seed, "bootstrap")
    draws = []
    for _ in range(resamples):
        drawn = [kind[torch.randint(len(kind), kind.shape, generator=rng)] for kind in (inside, outside)]
        draws.append(_figures(*(kind.bincount(minlength=size) for kind in drawn)))
    resampled = torch.tensor([astuple(draw) for draw in draws], dtype=torch.float64).unbind(-1)
    names = [field.name for field in fields(Detection)]
    return {name: percentile_interval(getattr(value, name), of) for name, of in zip(names, resampled, strict=True)}


def _places(score_in: Tensor, score_out: Tensor) -> tuple[Tensor, Tensor, int]:
    """The place of each image's score among the values that occur, in ascending order, and how many values do."""
    check_scores("scores of in-distribution images", score_in)
    check_scores("scores of out-of-distribution images", score_out)
    scores = torch.cat([score_in.double().cpu(), score_out.double().cpu()])
    values, places = scores.unique(return_inverse=True)
    return places[: len(score_in)], places[len(score_in) :], len(values)


def _figures(inside: Int64[Tensor, "value"], outside: Int64[Tensor, "value"]) -> Detection:
    """From how many images of either kind have each value, in ascending order."""
    num_inside, num_outside = int(inside.sum()), int(outside.sum())
    up_inside, up_outside = inside.cumsum(0), outside.cumsum(0)  # images of at most a value
    down_inside, down_outside = num_inside - up_inside + inside, num_outside - up_outside + outside  # of at least it
    half_pairs = int((outside * (2 * up_inside - inside)).sum())  # in whole numbers, so exact
    least = -(-num_inside * 95 // 100)  # 95 %, rounded up without a float's error
    threshold = torch.searchsorted(up_inside, least)
    return Detection(
        auroc=half_pairs / (2 * num_inside * num_outside),
        aupr_in=_average_precision(inside, up_inside, up_outside),
        aupr_out=_average_precision(outside, down_outside, down_inside),
        fpr95=up_outside[threshold].item() / num_outside,
    )


def _average_precision(wanted: Tensor, found: Tensor, wrong: Tensor) -> float:
    """``Σ_v wanted_v / wanted · found_v / (found_v + wrong_v)``, where `found` and `wrong` are up to the value v."""
    precision = found.double() / (found + wrong).clamp(min=1)
    return ((wanted * precision).sum() / wanted.sum()).item()
