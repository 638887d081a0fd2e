"""Predictions: what they are, their file, and the probabilities they stand for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from bayes_share.arrays import map_arrays, write_array, write_stamp
from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.binary import binary_labels, two_class_logits, with_label_axis
from bayes_share.evaluation.checks import (
    check_binary_logits,
    check_features,
    check_labels,
    check_logits,
)
from bayes_share.evaluation.own_arrays import Array, as_float32, as_labels
from bayes_share.evaluation.positions import check_examples, check_positions, rows_of
from bayes_share.files import replacing
from bayes_share.models.mixture import image_parts, mixture_log_probs
from bayes_share.terminal import listed, printable

_LONGEST_NAME = 100  # characters
_AXES = 4  # draws, members, images and classes
Kind = TypeVar("Kind", bound="Outputs")

LikelihoodName = Literal["categorical", "bernoulli"]
"""What logits mean: the classes of one softmax, or labels that are 0 or 1, each with the sigmoid as that of 1."""


@dataclass(frozen=True, eq=False, init=False)
class Outputs:
    """What a network gives for images of which nothing else is known, such as ones from another data set.

    Args:
        logits: ``[draw, member, image, class]``, ``[member, image, class]`` or ``[image, class]``, finite; a tensor or
            an array of numpy, of any floating type. Of a Bernoulli likelihood ``[draw, member, image, label]`` or
            ``[image, label]``; where there is one label, ``[draw, member, image]`` or ``[image]``. They become float32
            with all four axes, and are detached. Where an example has several positions, such as pixels or tokens,
            ``[draw, member, example, *position, class]``, as `predict_arguments` gives them: each position becomes an
            image, those of the first example first.
        features: ``[member, image, feature]``, float32 and finite, or None: what each member's last layer sees, of
            length 1, the mean over draws.
        likelihood: "categorical", or "bernoulli" where each output is a label of its own that is 0 or 1. It is never
            guessed from the shape.
        stamp: of the run that they are of, for their file; empty where they are of none.
        examples: ``[image]``, the number of the example that each "image" is a position of; None where each is an
            example. Scores are over positions, and their errors those over examples.

    Raises:
        InputError: another type or shape, a number that is not finite (says where), one class, or an unknown
            likelihood.
    """

    logits: Float32[Tensor, "draw member image output"]
    features: Float32[Tensor, "member image feature"] | None
    likelihood: LikelihoodName
    stamp: str
    examples: Int64[Tensor, "image"] | None

    def __init__(
        self,
        logits: Array,
        *,
        features: Array | None = None,
        likelihood: LikelihoodName = "categorical",
        stamp: str = "",
        examples: Array | None = None,
    ) -> None:
        check_likelihood(likelihood)
        found = as_float32("logits", logits)
        of = None if examples is None else as_labels(examples)
        if found.ndim > _AXES and of is None:
            found, of = rows_of(found)
        found = _with_axes(found, likelihood)
        (check_binary_logits if likelihood == "bernoulli" else check_logits)(found)
        seen = None if features is None else as_float32("features", features)
        if seen is not None:
            check_features(seen, *found.shape[1:3])
        if of is not None:
            check_examples(of, found.shape[2])
        self._keep(logits=found, features=seen, likelihood=likelihood, stamp=stamp, examples=of)

    def _keep(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def has_positions(self) -> bool:
        """Whether an example may have several positions, each of which is an "image" here."""
        return self.examples is not None

    @property
    def num_examples(self) -> int:
        """How many examples there are; of their positions there may be more."""
        return self.logits.shape[2] if self.examples is None else len(self.examples.unique())

    @property
    def num_problems(self) -> int:
        """How many `problems` there are."""
        return self.logits.shape[-1] if self.likelihood == "bernoulli" else 1

    def problems(self: Kind) -> Iterator[Kind]:
        """The categorical predictions that these are, which every score is computed from.

        Categorical ones are one problem, themselves. Of a Bernoulli likelihood each label is one, with two classes of
        the logits 0 and z, without features; a score of several labels is the mean of their scores.
        """
        if self.likelihood == "categorical":
            yield self
            return
        for label, logits in enumerate(self.logits.unbind(-1)):
            yield replace(self, **self._problem(label), logits=two_class_logits(logits))

    def _problem(self, label: int) -> dict[str, Any]:
        """What else changes where one label becomes a problem of its own."""
        return {"likelihood": "categorical", "features": None}

    @cached_property
    def log_probs(self) -> Float64[Tensor, "image class"]:
        """Of the mixture of all draws and members, as `log_probs` says.

        Computed once, since the logits may be many: other logits are for a new record, not to be written into this one.
        One binary output has two classes.

        Raises:
            InputError: several labels, which have no distribution over classes in common; go over `problems`.
        """
        if self.num_problems > 1:
            raise InputError(
                f"{self.num_problems} labels have no common distribution over classes: take each of .problems()"
            )
        (only,) = self.problems()
        return mixture_log_probs(only.logits)

    @property
    def mixture_logits(self) -> Float64[Tensor, "image output"]:
        """The mixture of all draws and members as the logits of one component.

        They are its log-probabilities, or of a Bernoulli likelihood each label's log-odds.
        """
        if self.likelihood == "categorical":
            return self.log_probs
        mixtures = [mixture_log_probs(problem.logits) for problem in self.problems()]
        return torch.stack([mixture[:, 1] - mixture[:, 0] for mixture in mixtures], dim=-1)


@dataclass(frozen=True, eq=False, init=False)
class Predictions(Outputs):
    """The logits of each member of each draw for each image, and the right classes.

    Args:
        logits: as in `Outputs`.
        labels: ``[image]``, whole numbers from 0; a tensor or an array of numpy, of any integer type. Of a Bernoulli
            likelihood ``[image]`` or ``[image, label]``, 0 or 1, of any type. They become int64, ``[image]`` where
            there is one label. Where an example has several positions, ``[example, *position]``, or ``[example,
            *position, label]``; logits may then leave out draws, or draws and members, too.
        features: as in `Outputs`.
        likelihood: as in `Outputs`.
        stamp: as in `Outputs`.
        examples: as in `Outputs`.
        ignore_index: a label that stands for "not known", such as -100: those positions are left out. Of classes only.

    Raises:
        InputError: another type or shape, a label outside the classes, or a number that is not finite; says where.

    Two texts of three tokens, of which one is not known:

    >>> tokens = torch.tensor([[0, 1, 1], [1, 0, -100]])
    >>> found = Predictions(torch.zeros(2, 3, 2), tokens, ignore_index=-100)
    >>> found.labels, found.examples
    (tensor([0, 1, 1, 1, 0]), tensor([0, 0, 0, 1, 1]))
    """

    labels: Int64[Tensor, "image *label"]

    def __init__(
        self,
        logits: Array,
        labels: Array,
        *,
        features: Array | None = None,
        likelihood: LikelihoodName = "categorical",
        stamp: str = "",
        examples: Array | None = None,
        ignore_index: int | None = None,
    ) -> None:
        check_likelihood(likelihood)
        if ignore_index is not None and likelihood != "categorical":
            raise InputError("ignore_index is a label that is no class, and of a Bernoulli likelihood there is none")
        found, wanted = as_float32("logits", logits), as_labels(labels)
        own_axes = 1 if likelihood == "categorical" else 2  # of labels without positions
        of = examples
        if wanted.ndim > own_axes and examples is None:
            found = _with_axes(found, likelihood, wanted.ndim - own_axes)
            check_positions(found, wanted)
            found, of = rows_of(found)
            wanted = wanted.flatten(0, -own_axes)
        if ignore_index is not None and wanted.ndim == 1:
            found, wanted, of = _known(found, wanted, of, ignore_index)
        super().__init__(found, features=features, likelihood=likelihood, stamp=stamp, examples=of)
        self._keep(labels=_checked_labels(wanted, self.logits.shape, likelihood))

    def _problem(self, label: int) -> dict[str, Any]:
        labels = self.labels if self.labels.ndim == 1 else self.labels[:, label]
        return {**super()._problem(label), "labels": labels}


def _known(
    logits: Tensor, labels: Tensor, examples: Array | None, ignore_index: int
) -> tuple[Tensor, Tensor, Array | None]:
    """What there is of the positions whose label is known."""
    known = labels != ignore_index
    if not bool(known.any()):
        raise InputError(f"every label is {ignore_index}, the ignore_index: there is nothing to score")
    if logits.ndim < 2 or logits.shape[-2] != len(labels):  # for the checks to refuse
        return logits, labels, examples
    of = None if examples is None else as_labels(examples)
    return logits[..., known.to(logits.device), :], labels[known], of if of is None else of[known]


def _with_axes(logits: Shaped[Tensor, "*shape"], likelihood: str, positions: int = 0) -> Shaped[Tensor, "*more"]:
    """Logits with the axes that were left out, each of length 1; what has other axes is for the checks to refuse."""
    if likelihood == "bernoulli" and not positions and logits.ndim in (1, 3):  # one label of an image
        logits = logits[..., None]
    missing = _AXES + positions - logits.ndim
    return logits[(None,) * missing] if missing in (1, 2) else logits


def check_kind(found: object, kind: type[Outputs] = Predictions) -> None:
    """Raise an InputError where something else was handed in than predictions, such as logits alone."""
    if not isinstance(found, kind):
        arguments = "logits, labels" if issubclass(kind, Predictions) else "logits"
        raise InputError(f"expected {kind.__name__}({arguments}), not a {type(found).__name__}")


def check_likelihood(name: str) -> None:
    """Raise an InputError where a likelihood is none that predictions can be of."""
    if name not in get_args(LikelihoodName):
        raise unknown("likelihood of predictions", name, get_args(LikelihoodName))


def _checked_labels(labels: Tensor, shape: torch.Size, likelihood: str) -> Int64[Tensor, "image *label"]:
    """Labels as they go with logits of a shape ``[..., image, class]`` or ``[..., image, label]``."""
    if likelihood == "bernoulli":
        return binary_labels(labels, *shape[-2:])
    check_labels(labels, *shape[-2:])
    return labels


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
        arrays["labels"] = _checked_labels(labels, torch.Size(first.shape), likelihood).numpy(force=True)
    if examples is not None:
        check_examples(examples, first.shape[1])
        arrays["examples"] = examples.numpy(force=True)
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
        raise InputError(f"there must be {num_draws} draws to write, and there are {count}")


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


_OPTIONAL = ("features", "likelihood", "examples")


def _read(path: str | Path, kind: type[Kind], required: tuple[str, ...], more: tuple[str, ...] = ()) -> Kind:
    where = printable(path)
    arrays, there = map_arrays(path, "an .npz file of predictions", [*required, *_OPTIONAL, *more])
    missing = [name for name in required if name not in arrays]
    if missing and "targets" in there:
        raise InputError(f"{where} holds predictions of numbers, and predictions of classes are needed here")
    if missing:
        held = listed(there) or "nothing"
        raise InputError(f"{where}: no predictions without the array {' and '.join(missing)}; it holds {held}")
    likelihood = printable(arrays.pop("likelihood", "categorical"), _LONGEST_NAME)
    try:
        check_likelihood(likelihood)
        given: dict[str, Any] = dict(arrays)
        if "ignore_index" in given:
            given["ignore_index"] = _whole(given["ignore_index"])
        return kind(**given, likelihood=cast(LikelihoodName, likelihood))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _whole(array: np.ndarray) -> int:
    if array.ndim or array.dtype.kind not in "iu":
        raise InputError(f"ignore_index must be one whole number, and is {list(array.shape)} of {array.dtype}")
    return int(array)


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


def label_log_probs(
    logits: Float[Tensor, "draw member image class"], labels: Int64[Tensor, "image"]
) -> Float64[Tensor, "draw member image"]:
    """The log-probability of each image's label under each component, in float64 and in nats.

    Args:
        logits: of any floating type; a few images at a time are in memory in float64.
        labels: the right classes.

    Raises:
        InputError: wrong axes or labels, or a logit that is not finite.

    >>> label_log_probs(torch.tensor([[[[0.0, 0.0]], [[0.0, 3.0]]]]), torch.tensor([1]))
    tensor([[[-0.6931],
             [-0.0486]]], dtype=torch.float64)
    """
    check_logits(logits)
    check_labels(labels, *logits.shape[-2:])
    labels = labels.to(logits.device)
    found = torch.empty(*logits.shape[:-1], dtype=torch.float64, device=logits.device)
    for part, images in image_parts(logits):
        chosen = labels[images].expand(part.shape[:-1])[..., None]
        found[:, :, images] = part.double().log_softmax(-1).gather(-1, chosen).squeeze(-1)
    return found
