"""The target of a table: its likelihood, its classes, and its encoding for training."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bayes_share.data.tables.column_types import kind_of, numbers, truths, whole
from bayes_share.data.tables.table import Column, Kind, check_complete, quoted
from bayes_share.errors import InputError, option, unknown
from bayes_share.io.terminal import distinct
from bayes_share.tensors.units import Units

REAL = ("normal", "student_t")
"""The likelihoods whose targets are standardised."""

LIKELIHOODS = (*REAL, "poisson", "bernoulli", "categorical")
"""The likelihoods that the target of a table can have."""

_MEANING = {
    "normal": "measurements",
    "student_t": "measurements with outliers",
    "poisson": "counts",
    "bernoulli": "yes and no",
    "categorical": "classes",
}
_MOST_CLASSES = 1000
_LONGEST = 200  # characters shown of a class name
_MOST_COUNTS = 2**24  # integers up to this are exact in float32
_INTEGERS = "integers"


@dataclass(frozen=True)
class Target:
    """The target column, with values fitted on the training rows.

    Attributes:
        name: the name of the column.
        likelihood: the name of the likelihood.
        kind: the kind of its values: "number", "boolean" or "text".
        class_names: the names of the classes in the order of their indices, or empty if there are none.
        mean: the mean of real-valued training targets, otherwise 0.
        scale: the standard deviation of real-valued training targets, otherwise 1.
    """

    name: str
    likelihood: str
    kind: str
    class_names: tuple[str, ...]
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.likelihood not in LIKELIHOODS:
            raise unknown("likelihood", self.likelihood, LIKELIHOODS)
        if self.kind not in ("number", "boolean", "text"):
            raise unknown("kind of target", self.kind, ("number", "boolean", "text"))
        if not self.scale > 0:
            raise InputError(f"the scale must be above 0, and is {self.scale}")
        if self.likelihood not in REAL and (self.mean, self.scale) != (0, 1):
            raise InputError(f"targets of the likelihood {self.likelihood} cannot be standardised")
        num_classes = {"bernoulli": (2, 2), "categorical": (2, _MOST_CLASSES)}.get(self.likelihood, (0, 0))
        if not num_classes[0] <= len(set(self.class_names)) == len(self.class_names) <= num_classes[1]:
            raise InputError(f"class_names must be distinct, and as many as {self.likelihood} has classes")

    def encode(self, column: Column) -> Tensor:
        """Encode a column as targets for the likelihood, in their original units.

        Args:
            column: the target column of any rows, without missing values.

        Returns:
            ``[row]``: real numbers in float64, counts and Bernoulli targets in float32, class indices in int64.

        Raises:
            InputError: a value is missing or cannot be a target.
        """
        check_complete(column, "each row must have a target")
        if not self.class_names:
            values = numbers(column)
            if self.likelihood == "poisson":
                _check_counts(column, values)
                return torch.from_numpy(values.astype(np.float32))
            _check_near(column, values, self.mean, self.scale)
            return torch.from_numpy(values)
        names = ("false", "true") if self.kind == "boolean" else self.class_names  # in any spelling
        numbered = {name: number for number, name in enumerate(names)}
        texts = _class_texts(column, self.kind)
        for row, text in enumerate(texts):
            if text not in numbered:
                raise column.fault(row, f"{quoted(column.texts[row])} is not a class of the training rows")
        classes = torch.tensor([numbered[text] for text in texts])
        return classes if self.likelihood == "categorical" else classes.float()

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """The names of the classes for display: printable, short and distinct."""
        return tuple(distinct(self.class_names, _LONGEST).values())

    @property
    def units(self) -> Units:
        """The mean and scale that convert standardised network outputs to the units of the targets."""
        return Units(*(torch.tensor(number, dtype=torch.float64) for number in (self.mean, self.scale)))


def choose_likelihood(column: Column, likelihood: str | None = None) -> str:
    """Choose the likelihood of a target, or check the given one.

    By default, text is categorical, booleans (also 0 and 1) are Bernoulli, and numbers that are not all integers are
    normal. Integers may be counts, classes or measurements, which the user must specify.

    Args:
        column: the target column of all rows.
        likelihood: the name of the likelihood, or None to choose it.

    Raises:
        InputError: the likelihood does not fit the column, or several fit and none is given. The message lists them.
    """
    if likelihood is not None and likelihood not in LIKELIHOODS:
        raise unknown("likelihood", likelihood, LIKELIHOODS)
    check_complete(column, "each row must have a target; leave out rows without one")
    possible, why = _possible(column, kind_of(column))
    if likelihood is None:
        if len(possible) > 1 and why == _INTEGERS:
            choices = _or(tuple(f"{name} ({_MEANING[name]})" for name in possible))
            raise column.error(
                f"its values are {why}, which fits several likelihoods: give {option('likelihood')}, {choices}"
            )
        return possible[0]
    if likelihood not in possible:
        raise column.error(f"its values are {why}: their likelihood can be {_or(possible)}, not {likelihood}")
    return likelihood


def class_names_of(column: Column, likelihood: str) -> tuple[str, ...]:
    """Return the names of the target's classes, or an empty tuple for other likelihoods.

    Texts are sorted alphabetically and numbers by value. Booleans have two classes, false first, in their most
    frequent spelling.

    Args:
        column: the target column of all rows.
        likelihood: the name of the likelihood.

    Raises:
        InputError: there are fewer than two classes.
    """
    if likelihood not in ("bernoulli", "categorical"):
        return ()
    kind = kind_of(column)
    texts = set(_class_texts(column, kind))
    if likelihood == "bernoulli" and texts <= {"0", "1"}:
        texts = {"0", "1"}
    if len(texts) < 2:
        raise column.error(f"all targets are {quoted(column.texts[0])}, but there must be at least two classes")
    if kind == "boolean":
        return _words_of_truths(column)
    return tuple(sorted(texts, key=float) if kind == "number" else sorted(texts))


def _possible(column: Column, kind: Kind) -> tuple[tuple[str, ...], str]:
    """Return the likelihoods that fit a column, the default first, and a description of its values."""
    if kind == "date":
        raise column.error("its values are dates, and the target must be numbers, classes, or yes and no")
    texts = set(column.texts)
    if kind == "boolean":
        return ("bernoulli", "categorical"), "true and false"
    if kind == "text":
        if len(texts) > min(_MOST_CLASSES, max(len(column.texts) // 2, 2)):
            raise column.error(
                f"it has {len(texts):,} different texts in {len(column.texts):,} rows, too many for classes"
            )
        return (("categorical", "bernoulli") if len(texts) == 2 else ("categorical",)), f"{len(texts)} texts"
    values = numbers(column)
    if not whole(values):
        return REAL, "real numbers"
    if set(values.tolist()) == {0.0, 1.0}:
        return ("bernoulli", "categorical", "poisson", *REAL), "0 and 1"
    counts = ("poisson",) if values.min() >= 0 and values.max() <= _MOST_COUNTS else ()
    classes = ("categorical",) if len(set(values.tolist())) <= _MOST_CLASSES else ()
    yes_or_no = ("bernoulli",) if set(values.tolist()) <= {0.0, 1.0} else ()
    return (*counts, *classes, *yes_or_no, *REAL), _INTEGERS


def _class_texts(column: Column, kind: str) -> list[str]:
    """Return the class of each row as a text. Integers are written in one form, whether 1 or 1.0."""
    if kind == "boolean":
        return truths(column)
    if kind == "text":
        return column.texts
    values = numbers(column).tolist()
    return [str(int(value)) if value.is_integer() else text for value, text in zip(values, column.texts, strict=True)]


def _words_of_truths(column: Column) -> tuple[str, str]:
    """Return the most frequent spellings of false and true in a boolean column; the earlier one in a tie."""
    truth = truths(column)
    pairs = list(zip(column.texts, truth, strict=True))
    no, yes = (Counter(text for text, value in pairs if value == wanted) for wanted in ("false", "true"))
    return no.most_common(1)[0][0], yes.most_common(1)[0][0]


def _check_counts(column: Column, values: np.ndarray) -> None:
    bad = (values < 0) | (values != np.floor(values)) | (values > _MOST_COUNTS)
    if bad.any():
        row = int(bad.argmax())
        raise column.fault(
            row, f"{quoted(column.texts[row])} is not a count: it must be an integer from 0 to {_MOST_COUNTS:,}"
        )


def _check_near(column: Column, values: np.ndarray, mean: float, scale: float) -> None:
    """Raise an InputError if a standardised value would be infinite in float32."""
    with np.errstate(over="ignore"):
        far = ~np.isfinite(((values - mean) / scale).astype(np.float32))
    if far.any():
        row = int(far.argmax())
        raise column.fault(row, f"{quoted(column.texts[row])} is too far from the training rows for float32")


def _or(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
