"""The file of predictions of classes and labels: written draw by draw, and mapped into memory."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.array_conversion import kind_in_words
from bayes_share.evaluation.binary import with_label_axis
from bayes_share.evaluation.checks import check_binary_logits, check_logits
from bayes_share.evaluation.class_names import checked_names
from bayes_share.evaluation.positions import check_examples
from bayes_share.evaluation.predictions import (
    Kind,
    LikelihoodName,
    Outputs,
    Predictions,
    check_likelihood,
    checked_labels,
    names_of_images,
)
from bayes_share.io.arrays import map_arrays, write_array, write_stamp
from bayes_share.io.files import replacing
from bayes_share.io.terminal import listed, printable

_LONGEST_NAME = 100  # characters
_OPTIONAL = ("features", "likelihood", "examples", "class_names", "names")


def write_predictions(path: str | Path, predictions: Outputs) -> None:
    """Write predictions into an ``.npz`` file: `path` holds all of them or is as it was before.

    Args:
        path: the file; its folder is made where it is missing.
        predictions: what to write, with labels or without; they are moved to the CPU.

    Raises:
        RunError: the file cannot be written.
    """
    labels = getattr(predictions, "labels", None)
    draws = predictions.logits
    write_draws(
        path,
        draws,
        len(draws),
        labels,
        predictions.features,
        predictions.likelihood,
        predictions.stamp,
        predictions.examples,
        predictions.class_names,
        predictions.names,
    )


def write_draws(
    path: str | Path,
    draws: Iterable[Float32[Tensor, "member image *output"]],
    num_draws: int,
    labels: Shaped[Tensor, "image *label"] | None = None,
    features: Float32[Tensor, "member image feature"] | None = None,
    likelihood: LikelihoodName = "categorical",
    stamp: str = "",
    examples: Int64[Tensor, "image"] | None = None,
    class_names: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Write predictions as `write_predictions` does, each draw as it comes: one at a time is in memory.

    Args:
        path: the file; its folder is made where it is missing.
        draws: the logits of each draw, float32 and finite.
        num_draws: how many there will be.
        labels: as in `Predictions`, where they are known.
        features: as in `Outputs`.
        likelihood: as in `Outputs`.
        stamp: as in `Outputs`.
        examples: as in `Outputs`.
        class_names: as in `Outputs`.
        names: as in `Outputs`.

    Raises:
        InputError: what `Predictions` refuses, draws of different shape, or another number of them.
        RunError: the file cannot be written.
    """
    check_likelihood(likelihood)
    checked = _checked(draws, num_draws, features, likelihood)
    first = next(checked)
    arrays: dict[str, np.ndarray] = {}
    if features is not None:
        arrays["features"] = features.numpy(force=True)
    if labels is not None:
        arrays["labels"] = checked_labels(labels, torch.Size(first.shape), likelihood).numpy(force=True)
    if examples is not None:
        check_examples(examples, first.shape[1])
        arrays["examples"] = examples.numpy(force=True)
    if class_names is not None:
        arrays["class_names"] = np.array(checked_names(class_names, likelihood, first.shape[-1]), dtype=np.str_)
    if names is not None:
        arrays["names"] = np.array(names_of_images(names, first.shape[1]), dtype=np.str_)
    if likelihood != "categorical":  # which a file without a name is
        arrays["likelihood"] = np.array(likelihood)
    with replacing(path) as file, ZipFile(file, "w") as archive:
        write_array(archive, "logits", (num_draws, *first.shape), chain([first], checked))
        for name, array in arrays.items():
            write_array(archive, name, array.shape, [array])
        write_stamp(archive, stamp)


def _checked(
    draws: Iterable[Tensor], num_draws: int, features: Tensor | None, likelihood: LikelihoodName
) -> Iterator[np.ndarray]:
    """The draws as arrays, when each has been seen to go with what came before."""
    check = check_binary_logits if likelihood == "bernoulli" else check_logits
    shape, count = torch.Size(), 0
    for count, given in enumerate(draws, start=1):
        draw = with_label_axis(given, 3) if likelihood == "bernoulli" else given
        if draw.dtype != torch.float32:
            raise InputError(f"the draws must be float32; draw {count - 1} is {draw.dtype}")
        if count == 1:
            shape = draw.shape
            Outputs(draw[None], features=features, likelihood=likelihood)
        elif count > num_draws or draw.shape != shape:
            raise InputError(
                f"the draws must be {num_draws} of shape {list(shape)}; draw {count - 1} is of {list(draw.shape)}"
            )
        else:
            check(draw[None], first_draw=count - 1)
        yield draw.numpy(force=True)
    if not count or count < num_draws:
        raise InputError(f"expected {num_draws} draws to write, and there are {count}")


def read_class_predictions(path: str | Path) -> Predictions:
    """Map what `write_predictions` wrote into memory; nothing in the file is executed.

    The logits stay in the file, and are read as they are looked at: they may be larger than the memory. What is
    written into them does not reach the file.

    Args:
        path: the file, without compression.

    Raises:
        InputError: a missing or damaged file, or one that does not hold predictions; names the file and the offender.
    """
    return _read(path, Predictions, ("logits", "labels"), ("ignore_index",))


def read_outputs(path: str | Path) -> Outputs:
    """Map what `write_predictions` wrote of images that need no labels, as `read_class_predictions` does.

    Args:
        path: the file, without compression.

    Raises:
        InputError: a missing or damaged file, or one that does not hold logits; names the file and the offender.
    """
    return _read(path, Outputs, ("logits",))


def _read(path: str | Path, kind: type[Kind], required: tuple[str, ...], more: tuple[str, ...] = ()) -> Kind:
    where = printable(path)
    arrays, there = map_arrays(path, "an .npz file of predictions", [*required, *_OPTIONAL, *more])
    missing = [name for name in required if name not in arrays]
    if missing and "targets" in there:
        raise InputError(f"{where} holds predictions of numbers, and predictions of classes are required here")
    if missing:
        held = listed(there) or "nothing"
        raise InputError(f"{where}: no predictions without the array {' and '.join(missing)}; it holds {held}")
    likelihood = printable(arrays.pop("likelihood", "categorical"), _LONGEST_NAME)
    try:
        check_likelihood(likelihood)
        given: dict[str, Any] = dict(arrays)
        if "ignore_index" in given:
            given["ignore_index"] = _whole(given["ignore_index"])
        for name, of in (("class_names", "class"), ("names", "image")):
            if name in given:
                given[name] = _texts(given[name], name, of)
        return kind(**given, likelihood=cast(LikelihoodName, likelihood))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _whole(array: np.ndarray) -> int:
    if array.ndim or array.dtype.kind not in "iu":
        raise InputError(
            f"ignore_index must be one whole number, and is {list(array.shape)} of {kind_in_words(array.dtype)}"
        )
    return int(array)


def _texts(array: np.ndarray, name: str, of: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise InputError(
            f"{name} must be a text for each {of}, and are {list(array.shape)} of {kind_in_words(array.dtype)}"
        )
    return [str(name) for name in array.tolist()]
