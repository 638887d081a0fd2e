"""Reading and writing files of class predictions. Files are written draw by draw, and memory-mapped when read."""

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

_LONGEST_NAME = 100  # maximum length of a name in an error message, in characters
_OPTIONAL = ("features", "likelihood", "examples", "class_names", "names")


def write_predictions(path: str | Path, predictions: Outputs) -> None:
    """Write predictions to an ``.npz`` file atomically: on failure, `path` is unchanged.

    Args:
        path: the file; missing parent folders are created.
        predictions: outputs, or predictions with labels.

    Raises:
        RunError: if the file cannot be written.
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
    """Write predictions like `write_predictions`, but draw by draw, with one draw in memory at a time.

    Args:
        path: the file; missing parent folders are created.
        draws: an iterable over the logits of each draw, float32 and finite.
        num_draws: the number of draws that `draws` yields.
        labels: see `Predictions`; None if they are unknown.
        features: see `Outputs`.
        likelihood: see `Outputs`.
        stamp: see `Outputs`.
        examples: see `Outputs`.
        class_names: see `Outputs`.
        names: see `Outputs`.

    Raises:
        InputError: if `Predictions` would reject the values, the shapes of draws differ, or the number of draws is not
            `num_draws`.
        RunError: if the file cannot be written.
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
    if likelihood != "categorical":  # the default of a file without a likelihood
        arrays["likelihood"] = np.array(likelihood)
    with replacing(path) as file, ZipFile(file, "w") as archive:
        write_array(archive, "logits", (num_draws, *first.shape), chain([first], checked))
        for name, array in arrays.items():
            write_array(archive, name, array.shape, [array])
        write_stamp(archive, stamp)


def _checked(
    draws: Iterable[Tensor], num_draws: int, features: Tensor | None, likelihood: LikelihoodName
) -> Iterator[np.ndarray]:
    """Check each draw against the first one, and yield it as an array."""
    check = check_binary_logits if likelihood == "bernoulli" else check_logits
    shape, count = torch.Size(), 0
    for count, given in enumerate(draws, start=1):
        draw = with_label_axis(given, 3) if likelihood == "bernoulli" else given
        if draw.dtype != torch.float32:
            raise InputError(f"the draws must be float32; draw {count - 1} is {draw.dtype}")
        if count == 1:
            shape = draw.shape
            Outputs(draw[None], features=features, likelihood=likelihood)
        elif count > num_draws:
            raise InputError(f"expected {num_draws} draws, and there are more")
        elif draw.shape != shape:
            raise InputError(
                f"expected {num_draws} draws of shape {list(shape)}; draw {count - 1} has the shape {list(draw.shape)}"
            )
        else:
            check(draw[None], first_draw=count - 1)
        yield draw.numpy(force=True)
    if not count or count < num_draws:
        raise InputError(f"expected {num_draws} draws to write, and there are {count}")


def read_class_predictions(path: str | Path) -> Predictions:
    """Memory-map a file written by `write_predictions`. Pickled objects in the file are not loaded.

    The logits are read on access, so they may be larger than the memory. The mapping is copy-on-write: changes to the
    logits are not written to the file.

    Args:
        path: the uncompressed file.

    Raises:
        InputError: if the file is missing or damaged, or does not contain valid predictions.
    """
    return _read(path, Predictions, ("logits", "labels"), ("ignore_index",))


def read_outputs(path: str | Path) -> Outputs:
    """Memory-map a file of outputs like `read_class_predictions`; labels are not required.

    Args:
        path: the uncompressed file.

    Raises:
        InputError: if the file is missing or damaged, or does not contain valid logits.
    """
    return _read(path, Outputs, ("logits",))


def _read(path: str | Path, kind: type[Kind], required: tuple[str, ...], more: tuple[str, ...] = ()) -> Kind:
    where = printable(path)
    arrays, there = map_arrays(path, "an .npz file of predictions", [*required, *_OPTIONAL, *more])
    missing = [name for name in required if name not in arrays]
    if missing and "targets" in there:
        raise InputError(f"{where} contains predictions of numbers, and predictions of classes are required here")
    if missing:
        held = listed(there) or "nothing"
        raise InputError(
            f"{where}: predictions require the array {' and '.join(missing)}, and the file contains {held}"
        )
    likelihood = printable(arrays.pop("likelihood", "categorical"), _LONGEST_NAME)
    try:
        check_likelihood(likelihood)
        given: dict[str, Any] = dict(arrays)
        if "ignore_index" in given:
            given["ignore_index"] = _integer(given["ignore_index"])
        for name, of in (("class_names", "class"), ("names", "image")):
            if name in given:
                given[name] = _texts(given[name], name, of)
        return kind(**given, likelihood=cast(LikelihoodName, likelihood))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _integer(array: np.ndarray) -> int:
    if array.ndim or array.dtype.kind not in "iu":
        raise InputError(
            f"ignore_index must be one integer, and has shape {list(array.shape)} and type {kind_in_words(array.dtype)}"
        )
    return int(array)


def _texts(array: np.ndarray, name: str, of: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise InputError(
            f"{name} must be one text for each {of}, and have shape {list(array.shape)} and type "
            f"{kind_in_words(array.dtype)}"
        )
    return [str(name) for name in array.tolist()]
