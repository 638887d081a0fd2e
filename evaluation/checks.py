"""What every score asks of its input, so that no wrong input becomes a number.

The arguments have no shapes in their types: these functions are what finds out.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from bayes_share.errors import InputError

LOGIT_AXES = ("draw", "member", "image", "class")

# Far above the rounding of a float32 softmax over thousands of classes, far below what logits taken for probabilities
# would show.
_SUM_TOLERANCE = 1e-3


def check_logits(logits: Tensor) -> None:
    """Check that logits are ``[draw, member, image, class]``, and that every one is finite.

    Raises:
        InputError: other than four axes, an empty one, or a logit that is not finite.
    """
    _check_axes("logits", logits, LOGIT_AXES)
    bad = ~logits.isfinite()
    if bad.any():
        raise InputError(f"logits that are not finite: {_where(bad, LOGIT_AXES)}")


def check_features(features: Tensor, num_members: int, num_images: int) -> None:
    """Check that features are ``[member, image, feature]``, float32 and finite, for these members and images.

    Raises:
        InputError: another type, other axes or lengths, or a number that is not finite.
    """
    axes = ("member", "image", "feature")
    _check_axes("features", features, axes)
    if features.dtype != torch.float32:
        raise InputError(f"features must be float32, and are {_name(features.dtype)}")
    if features.shape[:2] != (num_members, num_images):
        raise InputError(
            f"features are of {features.shape[0]} members and {features.shape[1]} images, "
            f"and the logits of {num_members} and {num_images}"
        )
    bad = ~features.isfinite()
    if bad.any():
        raise InputError(f"features that are not finite: {_where(bad, axes)}")


def check_labels(labels: Tensor, num_images: int, num_classes: int) -> None:
    """Check that labels are ``[image]``, int64, one per image, and that each is a class.

    Raises:
        InputError: another type, axis or length, or a label outside the classes.
    """
    if labels.dtype != torch.int64:
        raise InputError(f"labels must be int64, and are {_name(labels.dtype)}")
    if labels.ndim != 1:
        raise InputError(f"labels must have the axis [image], and have the shape {list(labels.shape)}")
    if len(labels) != num_images:
        raise InputError(f"there are {len(labels)} labels for {num_images} images")
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        offender = labels[bad][0].item()
        raise InputError(f"labels outside the classes 0 to {num_classes - 1}: {_where(bad, ['image'])}: {offender}")


def check_probs(probs: Tensor, labels: Tensor) -> None:
    """Check that each row of ``[image, class]`` is a probability distribution, and that the labels belong to it.

    Raises:
        InputError: wrong axes, a number that is none, a negative one, a row that does not sum to 1, or wrong labels.
    """
    axes = ("image", "class")
    _check_axes("probabilities", probs, axes)
    for kind, bad in ("NaN", probs.isnan()), ("negative", probs < 0):
        if bad.any():
            raise InputError(f"probabilities that are {kind}: {_where(bad, axes)}")
    sums = probs.sum(-1)
    bad = ~((sums - 1).abs() < _SUM_TOLERANCE)
    if bad.any():
        raise InputError(f"probabilities that do not sum to 1: {_where(bad, ['image'])}: {sums[bad][0].item():.6g}")
    check_labels(labels, *probs.shape)


def check_scores(what: str, scores: Tensor) -> None:
    """Check that scores are ``[image]``, one at least, and that every one is finite.

    Raises:
        InputError: another axis, no image, or a score that is not finite.
    """
    _check_axes(what, scores, ["image"])
    bad = ~scores.isfinite()
    if bad.any():
        raise InputError(f"{what} that are not finite: {_where(bad, ['image'])}")


def _check_axes(what: str, values: Tensor, axes: Sequence[str]) -> None:
    if not values.is_floating_point():
        raise InputError(f"{what} must be floating point, and are {_name(values.dtype)}")
    if values.ndim != len(axes) or not values.numel():
        kind = "empty" if values.ndim == len(axes) else "wrong"
        raise InputError(f"{what} must have the axes [{', '.join(axes)}]: the shape {list(values.shape)} is {kind}")


def _where(bad: Bool[Tensor, "..."], axes: Sequence[str]) -> str:
    first = bad.nonzero()[0].tolist()
    place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
    return f"{int(bad.sum())} of {bad.numel()}, the first at {place}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
