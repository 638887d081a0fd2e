"""Predictions of classes and labels: what they are, and the probabilities they stand for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
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
from bayes_share.models.mixture import image_parts, mixture_log_probs

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
        class_names: in the order of their numbers, to be shown in place of these; of a single binary label two, of 0
            and of 1. None: the classes have no names.
        names: of the images, such as their files, one for each; where these have positions, one for each example, whose
            positions all have it. None: they have none.

    Raises:
        InputError: another type or shape, a number that is not finite (says where), one class, an unknown likelihood,
            or other names than one for each class or image.
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
        """The same with other values, which are known to be right and are not checked again."""
        made = object.__new__(type(self))
        made._keep(**{field.name: getattr(self, field.name) for field in fields(self)} | values)
        return made

    def named(self: Kind, class_names: Sequence[str] | None) -> Kind:
        """The same predictions, of classes with these names.

        Raises:
            InputError: other names than one for each class.
        """
        if class_names is None:
            return self._with(class_names=None)
        return self._with(class_names=checked_names(class_names, self.likelihood, self.logits.shape[-1]))

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """What each class of the only problem is shown as: its name, or its number where it has none."""
        return shown(self.class_names, 2 if self.likelihood == "bernoulli" else self.logits.shape[-1])

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
            yield self._with(**self._problem(label), logits=two_class_logits(logits))

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
                f"{self.num_problems} labels have no common distribution over classes: use each of .problems()"
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
        class_names: as in `Outputs`.
        names: as in `Outputs`.
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
        class_names: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        check_likelihood(likelihood)
        if ignore_index is not None and likelihood != "categorical":
            raise InputError("ignore_index is not supported with a Bernoulli likelihood")
        found, wanted = as_float32("logits", logits), as_labels(labels)
        own_axes = 1 if likelihood == "categorical" else 2  # of labels without positions
        of = examples
        if wanted.ndim > own_axes and examples is None:
            found = _with_axes(found, likelihood, wanted.ndim - own_axes)
            check_positions(found, wanted)
            found, of = rows_of(found)
            wanted = wanted.flatten(0, -own_axes)
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
        """The predictions of some of the images, in the order of their indices, without features."""
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


def names_of_images(names: Sequence[str], count: int, examples: Tensor | None = None) -> tuple[str, ...]:
    """Names, one for each image, as they are kept.

    Args:
        names: one for each image, or where these are positions, one for each example.
        count: images.
        examples: ``[image]``, that each is a position of; None: each is an example.

    Raises:
        InputError: another number of them, or no texts.
    """
    if examples is not None and not isinstance(names, str) and len(names) == len(examples.unique()) != count:
        numbers = examples.unique(return_inverse=True)[1].tolist()
        return names_of_images([names[number] for number in numbers], count)
    if isinstance(names, str) or not all(isinstance(name, str) for name in names) or len(names) != count:
        found = "one text" if isinstance(names, str) else f"{len(names)} of them"
        raise InputError(f"names must be {count} texts, one for each image, not {found}")
    return tuple(names)


def check_likelihood(name: str) -> None:
    """Raise an InputError where a likelihood is none that predictions can be of."""
    if name not in get_args(LikelihoodName):
        raise unknown("likelihood of predictions", name, get_args(LikelihoodName))


def checked_labels(labels: Tensor, shape: torch.Size, likelihood: str) -> Int64[Tensor, "image *label"]:
    """Labels as they go with logits of a shape ``[..., image, class]`` or ``[..., image, label]``."""
    if likelihood == "bernoulli":
        return binary_labels(labels, *shape[-2:])
    check_labels(labels, *shape[-2:])
    return labels


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
