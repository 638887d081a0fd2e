"""Outputs and predictions of a classifier: logits of all draws and members, with labels and names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.array_conversion import Array, as_float32, as_labels
from bayes_share.evaluation.binary import binary_labels, two_class_logits
from bayes_share.evaluation.checks import (
    check_binary_logits,
    check_features,
    check_labels,
    check_logits,
)
from bayes_share.evaluation.class_names import checked_names, shown
from bayes_share.evaluation.logit_check import warn_of_probabilities
from bayes_share.evaluation.positions import check_examples, check_positions, rows_of
from bayes_share.models.mixture import mixture_log_probs

_AXES = 4  # draw, member, image and class
Kind = TypeVar("Kind", bound="Outputs")

LikelihoodName = Literal["categorical", "bernoulli"]
"""How logits define probabilities: a softmax over classes, or an independent sigmoid for each binary label."""


@dataclass(frozen=True, eq=False, init=False)
class Outputs:
    """The outputs of a network for images without labels, such as images of another data set.

    Args:
        logits: finite logits, ``[draw, member, image, class]``, ``[member, image, class]`` or ``[image, class]``; a
            tensor or NumPy array of any floating type. For a Bernoulli likelihood ``[draw, member, image, label]`` or
            ``[image, label]``; for a single label also ``[draw, member, image]`` or ``[image]``. They are detached and
            converted to float32 with four axes. If examples have several positions, such as pixels or tokens,
            ``[draw, member, example, *position, class]``, as returned by `predict_arguments`; each position becomes an
            image, in the order of the examples.
        features: ``[member, image, feature]``, float32 and finite, or None: the inputs of the last layer of each
            member, normalised to length 1 and averaged over draws.
        likelihood: "categorical", or "bernoulli" if each output is a separate binary label. It is never inferred from
            the shape.
        stamp: the stamp of the run that made the outputs, stored in their file; empty if there is no run.
        examples: ``[image]``, the index of the example that each image is a position of; None if each image is an
            example. Scores are means over positions, with errors computed over examples.
        class_names: the display names in class order; two, for 0 and 1, for a single binary label. None: the classes
            have no names.
        names: the names of the images, such as file names, one per image; if images are positions, one per image or one
            per example. None: the images have no names.

    Raises:
        InputError: if a type or shape is wrong, a value is not finite, there is a single class, the likelihood is
            unknown, or the number of names is wrong.
    """

    logits: Float32[Tensor, "draw member image output"]
    features: Float32[Tensor, "member image feature"] | None
    likelihood: LikelihoodName
    stamp: str
    examples: Int64[Tensor, "image"] | None
    class_names: tuple[str, ...] | None
    names: tuple[str, ...] | None

    def __init__(
        self,
        logits: Array,
        *,
        features: Array | None = None,
        likelihood: LikelihoodName = "categorical",
        stamp: str = "",
        examples: Array | None = None,
        class_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        check_likelihood(likelihood)
        found = as_float32("logits", logits)
        of = None if examples is None else as_labels(examples)
        if found.ndim > _AXES and of is None:
            found, of = rows_of(found)
        if likelihood == "bernoulli" and found.ndim == 3 and found.shape[1] > found.shape[2] == 1:
            raise InputError(
                f"binary logits of shape {list(found.shape)} are [draw, member, image] or [member, image, label]: pass "
                "all axes, [draw, member, image, label]"
            )
        found = _with_axes(found, likelihood)
        (check_binary_logits if likelihood == "bernoulli" else check_logits)(found)
        seen = None if features is None else as_float32("features", features)
        if seen is not None:
            check_features(seen, *found.shape[1:3])
        if of is not None:
            check_examples(of, found.shape[2])
        classes = None if class_names is None else checked_names(class_names, likelihood, found.shape[-1])
        of_images = None if names is None else names_of_images(names, found.shape[2], of)
        self._keep(logits=found, features=seen, likelihood=likelihood, stamp=stamp, examples=of)
        self._keep(class_names=classes, names=of_images)
        warn_of_probabilities(found, likelihood)

    def _keep(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _with(self: Kind, **values: Any) -> Kind:
        """Return a copy with some fields replaced, without validation."""
        made = object.__new__(type(self))
        made._keep(**{field.name: getattr(self, field.name) for field in fields(self)} | values)
        return made

    def named(self: Kind, class_names: Sequence[str] | None) -> Kind:
        """Return a copy with other class names.

        Raises:
            InputError: if the names are not unique strings, one for each class.
        """
        if class_names is None:
            return self._with(class_names=None)
        return self._with(class_names=checked_names(class_names, self.likelihood, self.logits.shape[-1]))

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """The displayed name of each class, or its index if there are no names; 0 and 1 for binary labels."""
        return shown(self.class_names, 2 if self.likelihood == "bernoulli" else self.logits.shape[-1])

    @property
    def has_positions(self) -> bool:
        """Whether images are positions of examples."""
        return self.examples is not None

    @property
    def num_examples(self) -> int:
        """The number of examples, which may have several positions each."""
        return self.logits.shape[2] if self.examples is None else len(self.examples.unique())

    @property
    def num_problems(self) -> int:
        """The number of `problems`."""
        return self.logits.shape[-1] if self.likelihood == "bernoulli" else 1

    def problems(self: Kind) -> Iterator[Kind]:
        """Yield the categorical problems that scores are computed from.

        Categorical predictions are a single problem. For a Bernoulli likelihood, each label is a two-class problem with
        the logits 0 and z, without features; a score of several labels is the mean of their scores.
        """
        if self.likelihood == "categorical":
            yield self
            return
        for label, logits in enumerate(self.logits.unbind(-1)):
            yield self._with(**self._problem(label), logits=two_class_logits(logits))

    def _problem(self, label: int) -> dict[str, Any]:
        """Return the fields, other than the logits, that change in the problem of one label."""
        return {"likelihood": "categorical", "features": None}

    @cached_property
    def log_probs(self) -> Float64[Tensor, "image class"]:
        """The log-probabilities of the mixture of all draws and members; see the function `log_probs`.

        They are computed once, so the logits must not be modified in-place. A single binary label has two classes.

        Raises:
            InputError: if there are several labels, which have no common distribution over classes; use `problems`.
        """
        if self.num_problems > 1:
            raise InputError(
                f"{self.num_problems} labels have no common distribution over classes: use each of .problems()"
            )
        (only,) = self.problems()
        return mixture_log_probs(only.logits)

    @property
    def mixture_logits(self) -> Float64[Tensor, "image output"]:
        """The logits of the mixture of all draws and members.

        They are its log-probabilities, or the log-odds of each label for a Bernoulli likelihood.
        """
        if self.likelihood == "categorical":
            return self.log_probs
        mixtures = [mixture_log_probs(problem.logits) for problem in self.problems()]
        return torch.stack([mixture[:, 1] - mixture[:, 0] for mixture in mixtures], dim=-1)


@dataclass(frozen=True, eq=False, init=False)
class Predictions(Outputs):
    """The logits of all draws and members for images, with the labels of the images.

    Args:
        logits: see `Outputs`.
        labels: ``[image]``, class indices from 0; a tensor or NumPy array of any integer type. For a Bernoulli
            likelihood ``[image]`` or ``[image, label]``, 0 or 1, of any dtype. They are converted to int64, ``[image]``
            for a single label. If examples have several positions, ``[example, *position]`` or ``[example, *position,
            label]``; the logits may then omit the draw axis, or the draw and member axes.
        features: see `Outputs`.
        likelihood: see `Outputs`.
        stamp: see `Outputs`.
        examples: see `Outputs`.
        class_names: see `Outputs`.
        names: see `Outputs`.
        ignore_index: a label for unknown classes, such as -100; positions with this label are dropped. Not supported
            for a Bernoulli likelihood.

    Raises:
        InputError: if a type or shape is wrong, a label is not a class, or a value is not finite; the message gives the
            first position.

    Two texts of three tokens each, one of which has an unknown class:

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
        class_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        check_likelihood(likelihood)
        if ignore_index is not None and likelihood != "categorical":
            raise InputError("ignore_index is not supported with a Bernoulli likelihood")
        found, wanted = as_float32("logits", logits), as_labels(labels)
        own_axes = 1 if likelihood == "categorical" else 2  # number of label axes without positions
        of = examples
        if wanted.ndim > own_axes and examples is None:
            found = _with_axes(found, likelihood, wanted.ndim - own_axes)
            check_positions(found, wanted)
            found, of = rows_of(found)
            wanted = wanted.flatten(0, -own_axes)
        else:
            found = _with_axes(found, likelihood)
        if ignore_index is not None and wanted.ndim == 1:
            if names is not None:
                rows = names_of_images(names, len(wanted), None if of is None else as_labels(of))
                names = [name for name, is_known in zip(rows, wanted != ignore_index, strict=True) if is_known]
            found, wanted, of = _known(found, wanted, of, ignore_index)
        super().__init__(
            found,
            features=features,
            likelihood=likelihood,
            stamp=stamp,
            examples=of,
            class_names=class_names,
            names=names,
        )
        self._keep(labels=checked_labels(wanted, self.logits.shape, likelihood))

    def at(self, indices: Int64[Tensor, "chosen"]) -> "Predictions":
        """Return the predictions for the images with the given indices, in their order, without features."""
        examples = None if self.examples is None else self.examples[indices]
        chosen = {"logits": self.logits[:, :, indices], "labels": self.labels[indices]}
        names = None if self.names is None else tuple(self.names[image] for image in indices.tolist())
        return self._with(**chosen, features=None, examples=examples, names=names)

    def _problem(self, label: int) -> dict[str, Any]:
        labels = self.labels if self.labels.ndim == 1 else self.labels[:, label]
        return {**super()._problem(label), "labels": labels}


def _known(
    logits: Tensor, labels: Tensor, examples: Array | None, ignore_index: int
) -> tuple[Tensor, Tensor, Array | None]:
    """Drop the positions whose label is `ignore_index`."""
    known = labels != ignore_index
    if not bool(known.any()):
        raise InputError(f"every label is {ignore_index}, the ignore_index: there is nothing to score")
    if logits.ndim < 2 or logits.shape[-2] != len(labels):  # rejected by later checks
        return logits, labels, examples
    of = None if examples is None else as_labels(examples)
    return logits[..., known.to(logits.device), :], labels[known], of if of is None else of[known]


def _with_axes(logits: Shaped[Tensor, "*shape"], likelihood: str, positions: int = 0) -> Shaped[Tensor, "*more"]:
    """Insert omitted axes of length 1. Other numbers of axes are left to later checks."""
    if likelihood == "bernoulli" and not positions and logits.ndim in (1, 3):  # a single label without its axis
        logits = logits[..., None]
    missing = _AXES + positions - logits.ndim
    return logits[(None,) * missing] if missing in (1, 2) else logits


def check_kind(found: object, kind: type[Outputs] = Predictions) -> None:
    """Raise InputError if a value is not an instance of `kind`, for example if it is a tensor of logits."""
    if not isinstance(found, kind):
        arguments = "logits, labels" if issubclass(kind, Predictions) else "logits"
        raise InputError(f"expected {kind.__name__}({arguments}), not {type(found).__name__}")


def names_of_images(names: Sequence[str], count: int, examples: Tensor | None = None) -> tuple[str, ...]:
    """Check image names, and return one name per image.

    Args:
        names: one name per image, or one per example if images are positions of examples.
        count: the number of images.
        examples: ``[image]``, the example index of each image; None if each image is an example.

    Raises:
        InputError: if the number of names is wrong, or a name is not a string.
    """
    if examples is not None and not isinstance(names, str) and len(names) == len(examples.unique()) != count:
        numbers = examples.unique(return_inverse=True)[1].tolist()
        return names_of_images([names[number] for number in numbers], count)
    if isinstance(names, str) or not all(isinstance(name, str) for name in names) or len(names) != count:
        found = "one text" if isinstance(names, str) else f"{len(names)} of them"
        raise InputError(f"names must be {count} texts, one for each image, not {found}")
    return tuple(names)


def check_likelihood(name: str) -> None:
    """Raise InputError if a name is not a likelihood of classes."""
    if name not in get_args(LikelihoodName):
        raise unknown("likelihood of predictions", name, get_args(LikelihoodName))


def checked_labels(labels: Tensor, shape: torch.Size, likelihood: str) -> Int64[Tensor, "image *label"]:
    """Check labels against the shape of logits ``[..., image, class]`` or ``[..., image, label]``, and return them."""
    if likelihood == "bernoulli":
        return binary_labels(labels, *shape[-2:])
    check_labels(labels, *shape[-2:])
    return labels
