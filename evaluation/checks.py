"""Input validation for the scores.

The arguments are annotated without shapes, because these functions check the shapes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from bayes_share.errors import InputError

LOGIT_AXES = ("draw", "member", "example", "class")

# Far above the rounding error of a float32 softmax over thousands of classes, and far below the deviation of logits
# passed as probabilities.
_SUM_TOLERANCE = 1e-3


def check_tensor(what: str, values: object) -> None:
    """Check that a value is a tensor.

    Args:
        what: its name in the error message, in the plural.
        values: the value.

    Raises:
        InputError: if it is not a tensor; a NumPy array is not.
    """
    if not isinstance(values, Tensor):
        raise InputError(f"{what} must be a tensor, not {type(values).__name__}: convert arrays with torch.as_tensor")


def check_logits(logits: Tensor, first_draw: int = 0) -> None:
    """Check that logits are ``[draw, member, image, class]`` with at least two classes, and finite.

    Args:
        logits: the logits of consecutive draws.
        first_draw: the index of the first draw, for the error message.

    Raises:
        InputError: if there are not four axes, an axis is empty, there is a single class, or a logit is not finite.
    """
    _check_axes("logits", logits, LOGIT_AXES)
    if logits.shape[-1] == 1:
        raise InputError(
            'logits must have at least two classes: for a Bernoulli likelihood, pass likelihood="bernoulli" '
            "to Outputs or Predictions, or two_class_logits(logits) to a function of logits"
        )
    _check_finite("logits", logits, LOGIT_AXES, first_draw)


def check_binary_logits(logits: Tensor, first_draw: int = 0) -> None:
    """Check that logits are ``[draw, member, image, label]`` and finite.

    Args:
        logits: the logits of consecutive draws.
        first_draw: the index of the first draw, for the error message.

    Raises:
        InputError: if there are not four axes, an axis is empty, or a logit is not finite.
    """
    axes = (*LOGIT_AXES[:-1], "label")
    _check_axes("logits", logits, axes)
    _check_finite("logits", logits, axes, first_draw)


def check_features(features: Tensor, num_members: int, num_images: int) -> None:
    """Check that features are ``[member, image, feature]``, float32 and finite, with the given lengths.

    Raises:
        InputError: if the dtype, an axis or a length is wrong, or a value is not finite.
    """
    axes = ("member", "example", "feature")
    _check_axes("features", features, axes)
    if features.dtype != torch.float32:
        raise InputError(f"features must be float32, and are {_name(features.dtype)}")
    if features.shape[:2] != (num_members, num_images):
        raise InputError(
            f"the features have {features.shape[0]} members and {features.shape[1]} examples, "
            f"and the logits have {num_members} and {num_images}"
        )
    _check_finite("features", features, axes)


def check_labels(labels: Tensor, num_images: int, num_classes: int) -> None:
    """Check that labels are ``[image]``, int64, and valid class indices.

    Raises:
        InputError: if the dtype, axis or length is wrong, or a label is not a class.
    """
    check_tensor("labels", labels)
    if labels.is_floating_point():
        raise InputError(
            f"labels must be int64 classes, and are {_name(labels.dtype)}: use NumberPredictions for numbers"
        )
    if labels.dtype != torch.int64:
        raise InputError(f"labels must be int64, and are {_name(labels.dtype)}: convert them with labels.long()")
    if labels.ndim != 1:
        raise InputError(f"labels must have the axis [example], and have the shape {list(labels.shape)}")
    if len(labels) != num_images:
        raise InputError(f"there are {len(labels)} labels for {num_images} examples")
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        offender = labels[bad][0].item()
        hint = f"; Predictions(..., ignore_index={offender}) leaves them out" if offender < 0 else ""
        raise InputError(
            f"labels outside the classes 0 to {num_classes - 1}: {_where(bad, ['example'])}: {offender}{hint}"
        )


def check_probs(probs: Tensor, labels: Tensor) -> None:
    """Check that each row of ``[image, class]`` is a probability distribution, and check the labels.

    Raises:
        InputError: if the axes are wrong, there is a single class, a value is NaN or negative, a row does not sum to 1,
            or `check_labels` rejects the labels. The message gives the first position.
    """
    check_distributions("probabilities", probs)
    if probs.shape[-1] == 1:
        raise InputError("probabilities must have at least two classes: for a binary output p use [1 - p, p]")
    check_labels(labels, *probs.shape)


def check_distributions(what: str, probs: Tensor) -> None:
    """Check that each row of ``[image, class]`` is a probability distribution.

    Args:
        what: the name of the values in the error message, in the plural.
        probs: the rows.

    Raises:
        InputError: if the axes are wrong, a value is NaN or negative, or a row does not sum to 1.
    """
    axes = ("example", "class")
    _check_axes(what, probs, axes)
    for kind, bad in ("NaN", probs.isnan()), ("negative", probs < 0):
        if bad.any():
            raise InputError(f"{what} that are {kind}: {_where(bad, axes)}")
    sums = probs.sum(-1)
    bad = ~((sums - 1).abs() < _SUM_TOLERANCE)
    if bad.any():
        raise InputError(f"{what} that do not sum to 1: {_where(bad, ['example'])}: {sums[bad][0].item():.6g}")


def check_values(what: str, values: Tensor) -> None:
    """Check that values are ``[image]``, floating point and not NaN.

    Args:
        what: the name of the values in the error message, in the plural.
        values: the values; they may be infinite.

    Raises:
        InputError: if the dtype or axis is wrong, there are no values, or a value is NaN.
    """
    _check_axes(what, values, ["example"])
    if (bad := values.isnan()).any():
        raise InputError(f"{what} that are NaN: {_where(bad, ['example'])}")


def check_same_images(one: Tensor, other: Tensor) -> None:
    """Check that two predictions have the same labels, and therefore the same images.

    Raises:
        InputError: if the lengths or the values of the labels ``[image]`` differ.
    """
    if len(one) != len(other):
        raise InputError(f"the predictions are for different examples: one has {len(one)}, the other {len(other)}")
    if (bad := one != other).any():
        raise InputError(f"the predictions are for different examples: labels differ: {_where(bad, ['example'])}")


def check_scores(what: str, scores: Tensor) -> None:
    """Check that scores are ``[image]``, not empty, and finite.

    Raises:
        InputError: if the axis is wrong, there are no scores, or a score is not finite.
    """
    _check_axes(what, scores, ["example"])
    bad = ~scores.isfinite()
    if bad.any():
        raise InputError(f"{what} that are not finite: {_where(bad, ['example'])}")


def _check_axes(what: str, values: Tensor, axes: Sequence[str]) -> None:
    check_tensor(what, values)
    if not values.is_floating_point():
        raise InputError(f"{what} must be floating point, and are {_name(values.dtype)}")
    if values.ndim != len(axes) or not values.numel():
        kind = "empty" if values.ndim == len(axes) else "wrong"
        raise InputError(f"{what} must have the axes [{', '.join(axes)}]: the shape {list(values.shape)} is {kind}")


def _check_finite(what: str, values: Tensor, axes: Sequence[str], start: int = 0) -> None:
    # aminmax propagates NaN and needs no temporary array of the size of the values.
    if all(end.isfinite() for end in values.aminmax()):
        return
    count, first = 0, None
    for index, part in enumerate(values, start):
        bad = ~part.isfinite()
        count += int(bad.sum())
        if first is None and count:
            first = [index, *_first(bad)]
    assert first is not None
    raise InputError(f"{what} that are not finite: {_place(count, values.numel(), first, axes)}")


def _where(bad: Bool[Tensor, "..."], axes: Sequence[str]) -> str:
    return _place(int(bad.sum()), bad.numel(), _first(bad), axes)


def _first(bad: Bool[Tensor, "..."]) -> list[int]:
    return [int(index) for index in torch.unravel_index(bad.flatten().byte().argmax(), bad.shape)]


def _place(count: int, total: int, first: Sequence[int], axes: Sequence[str]) -> str:
    place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
    return f"{count} of {total}, the first at {place}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
