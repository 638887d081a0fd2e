"""Binary outputs as two-class problems: the output z of a Bernoulli likelihood becomes the class logits [0, z]."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_tensor

Record = TypeVar("Record")


def two_class_logits(
    logits: Float[Tensor, "draw member image *output"],
) -> Float[Tensor, "draw member image 2"]:
    """Convert the logit z of a Bernoulli likelihood to the logits ``[0, z]`` of the classes 0 and 1.

    The softmax of the result is the sigmoid of z, so every function of class logits accepts it.

    Args:
        logits: logits of a single binary output, ``[draw, member, image]`` or ``[draw, member, image, 1]``.

    Raises:
        InputError: if the axes are other ones, or there are several outputs.

    >>> two_class_logits(torch.tensor([[[2.0, -1.0]]]))
    tensor([[[[ 0.,  2.],
              [ 0., -1.]]]])
    """
    if logits.ndim == 4 and logits.shape[-1] == 1:
        logits = logits.squeeze(-1)
    if logits.ndim != 3:
        raise InputError(
            f"binary logits are [draw, member, example] or [draw, member, example, 1], and have the shape "
            f'{list(logits.shape)}; several labels are Outputs(logits, likelihood="bernoulli")'
        )
    return torch.stack([torch.zeros_like(logits), logits], dim=-1)


def with_label_axis(logits: Shaped[Tensor, "*shape"], ndim: int) -> Shaped[Tensor, "*more"]:
    """Append the label axis, of length 1, to binary logits of a single label that lack it."""
    return logits[..., None] if logits.ndim == ndim - 1 else logits


def binary_labels(labels: Shaped[Tensor, "*shape"], num_images: int, num_labels: int) -> Int64[Tensor, "image *label"]:
    """Convert labels of a Bernoulli likelihood to int64: ``[image]`` for a single label, else ``[image, label]``.

    Args:
        labels: 0 or 1, integer, bool or floating point; ``[image]``, ``[image, 1]`` or ``[image, label]``.
        num_images: the number of images in the logits.
        num_labels: the number of labels in the logits.

    Raises:
        InputError: if the shape is another one, or a label is neither 0 nor 1; the message gives its position.
    """
    check_tensor("labels", labels)
    allowed = {(num_images, num_labels)} | ({(num_images,)} if num_labels == 1 else set())
    if tuple(labels.shape) not in allowed:
        wanted = " or ".join(str(list(shape)) for shape in sorted(allowed))
        raise InputError(
            f"binary labels of {num_images} examples with {num_labels} label{'s' * (num_labels > 1)} must have shape "
            f"{wanted}, and have {list(labels.shape)}"
        )
    bad = (labels != 0) & (labels != 1)
    if bad.any():
        place = [int(index) for index in torch.unravel_index(bad.flatten().byte().argmax(), bad.shape)]
        at = ", ".join(f"{axis} {index}" for axis, index in zip(("example", "label"), place, strict=False))
        raise InputError(
            f"binary labels must be 0 or 1: {int(bad.sum())} of {bad.numel()} are not, the first at {at}: "
            f"{labels[tuple(place)].item()}"
        )
    return (labels.squeeze(-1) if labels.ndim == 2 and num_labels == 1 else labels).long()


def mean_over_labels(records: Iterable[Record]) -> Record:
    """Average records field by field, such as the scores of the labels of a multi-label problem.

    Args:
        records: instances of one dataclass, one for each label. Fields other than floats and floating-point tensors are
            taken from the first record.

    >>> from bayes_share.evaluation.detection import Detection
    >>> mean_over_labels([Detection(0.5, 0.2, 0.0, 1.0), Detection(1.0, 0.4, 0.0, 0.0)]).auroc
    0.75
    """
    first, *others = records
    if not others:
        return first
    values = {}
    for field in fields(cast(Any, first)):
        all_values = [getattr(record, field.name) for record in (first, *others)]
        value = all_values[0]
        if isinstance(value, float):
            value = sum(all_values) / len(all_values)
        elif isinstance(value, Tensor) and value.is_floating_point():
            value = torch.stack(all_values).mean(0)
        values[field.name] = value
    return type(first)(**values)
