"""Predictions: what they are, their file, and the probabilities they stand for."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_labels, check_logits
from bayes_share.files import replacing
from bayes_share.models.likelihood import mixture_log_probs

_DTYPES = {"logits": np.dtype(np.float32), "labels": np.dtype(np.int64)}


@dataclass(frozen=True, eq=False)
class Predictions:
    """The logits of each member of each draw for each image, and the right classes.

    Args:
        logits: ``[draw, member, image, class]``, float32 and finite.
        labels: ``[image]``, int64.

    Raises:
        InputError: another type or shape, a label outside the classes, or a logit that is not finite; says where.
    """

    logits: Float32[Tensor, "draw member image class"]
    labels: Int64[Tensor, "image"]

    def __post_init__(self) -> None:
        if self.logits.dtype != torch.float32:
            raise InputError(f"logits must be float32, and are {str(self.logits.dtype).removeprefix('torch.')}")
        check_logits(self.logits)
        check_labels(self.labels, *self.logits.shape[-2:])


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write predictions into an ``.npz`` file: `path` holds all of them or is as it was before.

    Args:
        path: the file; its folder is made where it is missing.
        predictions: what to write; they are moved to the CPU.

    Raises:
        RunError: the file cannot be written.
    """
    with replacing(path) as file:
        np.savez(file, logits=predictions.logits.numpy(force=True), labels=predictions.labels.numpy(force=True))


def read_predictions(path: str | Path) -> Predictions:
    """Read what `write_predictions` wrote; nothing in the file is executed.

    Args:
        path: the file.

    Raises:
        InputError: a missing or damaged file, or one that does not hold predictions; names the file and the offender.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file of predictions")
    arrays = _load(path)
    missing = [name for name in _DTYPES if name not in arrays]
    if missing:
        there = ", ".join(arrays) or "nothing"
        raise InputError(f"{path}: no predictions without the array {' and '.join(missing)}; it holds {there}")
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype:
            raise InputError(f"{path}: {name} must be {dtype}, and are {arrays[name].dtype}")
    try:
        return Predictions(**{name: torch.from_numpy(arrays[name]) for name in _DTYPES})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def log_probs(logits: Float[Tensor, "draw member image class"]) -> Float64[Tensor, "image class"]:
    """The log of the mean probability over all draws and members.

    The members are a mixture: ``p(y|x) = mean_i softmax(logits_i)_y``, computed in float64 and in log space, so that
    a probability too small for a float keeps its log. The mean of the logits would be another model, a product of
    experts (deep ensembles, arXiv 1612.01474, section 2.4; BatchEnsemble, arXiv 2002.06715, section 3.1).

    Args:
        logits: of any floating type; one component is in memory in float64 at a time.

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
