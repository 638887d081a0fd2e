"""Predictions: what they are, their file, and the probabilities they stand for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_features, check_labels, check_logits
from bayes_share.files import replacing
from bayes_share.models.likelihood import mixture_log_probs

_DTYPES = {"logits": np.dtype(np.float32), "features": np.dtype(np.float32), "labels": np.dtype(np.int64)}
Kind = TypeVar("Kind", bound="Outputs")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a network gives for images of which nothing else is known, such as ones from another data set.

    Args:
        logits: ``[draw, member, image, class]``, float32 and finite.
        features: ``[member, image, feature]``, float32 and finite, or None: what each member's last layer sees, of
            length 1, the mean over draws.

    Raises:
        InputError: another type or shape, or a number that is not finite; says where.
    """

    logits: Float32[Tensor, "draw member image class"]
    features: Float32[Tensor, "member image feature"] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.logits.dtype != torch.float32:
            raise InputError(f"logits must be float32, and are {str(self.logits.dtype).removeprefix('torch.')}")
        check_logits(self.logits)
        if self.features is not None:
            check_features(self.features, *self.logits.shape[1:3])


@dataclass(frozen=True, eq=False)
class Predictions(Outputs):
    """The logits of each member of each draw for each image, and the right classes.

    Args:
        logits: ``[draw, member, image, class]``, float32 and finite.
        labels: ``[image]``, int64.
        features: as in `Outputs`.

    Raises:
        InputError: another type or shape, a label outside the classes, or a number that is not finite; says where.
    """

    labels: Int64[Tensor, "image"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.labels, *self.logits.shape[-2:])


def write_predictions(path: str | Path, predictions: Outputs) -> None:
    """Write predictions into an ``.npz`` file: `path` holds all of them or is as it was before.

    Args:
        path: the file; its folder is made where it is missing.
        predictions: what to write, with labels or without; they are moved to the CPU.

    Raises:
        RunError: the file cannot be written.
    """
    arrays = {name: getattr(predictions, name, None) for name in _DTYPES}
    with replacing(path) as file:
        np.savez(file, **{name: array.numpy(force=True) for name, array in arrays.items() if array is not None})


def read_predictions(path: str | Path) -> Predictions:
    """Read what `write_predictions` wrote; nothing in the file is executed.

    Args:
        path: the file.

    Raises:
        InputError: a missing or damaged file, or one that does not hold predictions; names the file and the offender.
    """
    return _read(path, Predictions, ("logits", "labels"))


def read_outputs(path: str | Path) -> Outputs:
    """Read what `write_predictions` wrote of images that need no labels; nothing in the file is executed.

    Args:
        path: the file.

    Raises:
        InputError: a missing or damaged file, or one that does not hold logits; names the file and the offender.
    """
    return _read(path, Outputs, ("logits",))


def _read(path: str | Path, kind: type[Kind], required: tuple[str, ...]) -> Kind:
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file of predictions")
    arrays = _load(path)
    missing = [name for name in required if name not in arrays]
    if missing:
        there = ", ".join(arrays) or "nothing"
        raise InputError(f"{path}: no predictions without the array {' and '.join(missing)}; it holds {there}")
    wanted = [name for name in (*required, "features") if name in arrays]
    for name in wanted:
        if arrays[name].dtype != _DTYPES[name]:
            raise InputError(f"{path}: {name} must be {_DTYPES[name]}, and are {arrays[name].dtype}")
    try:
        return kind(**{name: torch.from_numpy(arrays[name]) for name in wanted})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def log_probs(logits: Float[Tensor, "draw member image class"]) -> Float64[Tensor, "image class"]:
    """The log of the mean probability over all draws and members.

    The members are a mixture: ``p(y|x) = mean_i softmax(logits_i)_y``, computed in float64 and in log space, so that
    a probability too small for a float keeps its log. The mean of the logits would be another model, a product of
    experts (deep ensembles, arXiv 1612.01474, section 2.4; BatchEnsemble, arXiv 2002.06715, section 3.1).

    Args:
        logits: of any floating type; a few images at a time are in memory in float64.

    Raises:
        InputError: wrong axes, or a logit that is not finite.

    Two members, one sure of class 0 and one undecided:

    >>> log_probs(torch.tensor([[[[100.0, 0.0]], [[0.0, 0.0]]]])).exp()
    tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    check_logits(logits)
    return mixture_log_probs(logits)


def _load(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return dict(file)
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    # A damaged byte can be anywhere in the zip or in an array's header, and each place raises its own kind.
    except Exception as error:
        raise InputError(f"{path}: damaged, or no .npz file of plain arrays ({type(error).__name__})") from error
