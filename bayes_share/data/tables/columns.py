"""Encode the columns of a table as network inputs, with numpy and values fitted on the training rows."""

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from bayes_share.data.tables.column_types import numbers, seconds, truths
from bayes_share.data.tables.table import Column, quoted
from bayes_share.errors import InputError

_log = logging.getLogger(__name__)

_DAY = 86_400.0
_YEAR = 365.2425  # days
_MOST_CATEGORIES = 100_000


@dataclass(frozen=True)
class Standardised:
    """Standardises numbers by the mean and standard deviation of the training rows.

    Attributes:
        fill: the value that replaces missing values, the training median.
        mean: the mean of the training rows.
        scale: their standard deviation, or 1 if all values are equal.
        has_indicator: whether an additional input indicates missing values.
    """

    fill: float
    mean: float
    scale: float
    has_indicator: bool

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"the scale must be above 0, and is {self.scale}")

    @property
    def width(self) -> int:
        """The number of inputs that encode a column."""
        return 1 + self.has_indicator

    def filled(self, values: np.ndarray) -> np.ndarray:
        """Replace missing values, NaN, in ``[row]``."""
        return np.where(np.isnan(values), self.fill, values)

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Encode values ``[row]``, with NaN for missing ones, as inputs ``[row, width]``."""
        inputs = [(self.filled(values) - self.mean) / self.scale]
        return np.stack([*inputs, np.isnan(values).astype(float)] if self.has_indicator else inputs, 1)

    def features(self, name: str) -> list[str]:
        """Return a name for each input that encodes the column `name`."""
        return [name, f"{name} is missing"] if self.has_indicator else [name]

    def warn(self, column: Column) -> None:
        """Log the number of missing values in a column that had none in the training rows."""
        if (count := column.texts.count("")) and not self.has_indicator:
            _log.warning(
                "%s, column %s: %d of %d values are missing, but no training row has a missing value; the median of "
                "the training rows is used",
                column.where,
                quoted(column.name),
                count,
                len(column.texts),
            )


@dataclass(frozen=True)
class Number:
    """A column of numbers.

    Attributes:
        name: the name of the column.
        values: the standardisation of its values.
    """

    kind: ClassVar[str] = "number"

    name: str
    values: Standardised

    @property
    def width(self) -> int:
        """The number of inputs that encode the column."""
        return self.values.width

    @property
    def has_missing(self) -> bool:
        """Whether values were missing in the training rows."""
        return self.values.has_indicator

    def features(self) -> list[str]:
        """Return a name for each input."""
        return self.values.features(self.name)

    def encode(self, column: Column) -> np.ndarray:
        """Encode the column as inputs ``[row, width]``. Missing values are logged if the training rows had none.

        Raises:
            InputError: a value is not a number.
        """
        self.values.warn(column)
        return self.values.encode(numbers(column))


@dataclass(frozen=True)
class Date:
    """A column of dates, encoded as standardised days and as sine and cosine of the year, the week and the day.

    Attributes:
        name: the name of the column.
        days: the standardisation of the days since 1970.
        has_time: whether the dates include times of day.
    """

    kind: ClassVar[str] = "date"

    name: str
    days: Standardised
    has_time: bool

    @property
    def width(self) -> int:
        """The number of inputs that encode the column."""
        return self.days.width + 2 * (2 + self.has_time)

    @property
    def has_missing(self) -> bool:
        """Whether values were missing in the training rows."""
        return self.days.has_indicator

    def features(self) -> list[str]:
        """Return a name for each input."""
        circles = ["year", "week", "day"][: 2 + self.has_time]
        parts = [f"{self.name}, {wave} of the {circle}" for circle in circles for wave in ("sine", "cosine")]
        return [*self.days.features(self.name), *parts]

    def encode(self, column: Column) -> np.ndarray:
        """Encode the column as inputs ``[row, width]``. Missing values are logged if the training rows had none.

        Raises:
            InputError: a value is not a date.
        """
        self.days.warn(column)
        days = days_of(column)
        return np.concatenate([self.days.encode(days), _circles(self.days.filled(days), 2 + self.has_time)], 1)


@dataclass(frozen=True)
class Category:
    """A column of categories, one-hot encoded. Unknown categories are encoded as "other" if that exists, else as 0.

    Attributes:
        name: the name of the column.
        is_boolean: whether the values are booleans, in any spelling.
        categories: the categories with an input of their own; an empty text stands for a missing value.
        has_other: whether one input stands for all other categories.
    """

    kind: ClassVar[str] = "category"

    name: str
    is_boolean: bool
    categories: tuple[str, ...]
    has_other: bool

    def __post_init__(self) -> None:
        if len(set(self.categories)) < len(self.categories) or len(self.categories) > _MOST_CATEGORIES:
            raise InputError("categories must be distinct texts, and not too many")
        if not self.width:
            raise InputError("a column of categories must have at least one")

    @property
    def width(self) -> int:
        """The number of inputs that encode the column: one per category, and one for "other" if that exists."""
        return len(self.categories) + self.has_other

    @property
    def has_missing(self) -> bool:
        """Whether missing values have an input of their own."""
        return "" in self.categories

    def num_others(self, column: Column) -> int:
        """Return the number of values in a column that have no input of their own."""
        return sum(text not in self.categories for text in category_texts(column, self.is_boolean))

    def features(self) -> list[str]:
        """Return a name for each input."""
        names = [f"{self.name} = {category}" if category else f"{self.name} is missing" for category in self.categories]
        return [*names, f"{self.name} = other"] if self.has_other else names

    def encode(self, column: Column) -> np.ndarray:
        """Encode the column as inputs ``[row, width]``. Unknown categories are logged if there is no "other".

        Raises:
            InputError: a value of a boolean column is not a boolean.
        """
        texts = category_texts(column, self.is_boolean)
        numbered = {category: number for number, category in enumerate(self.categories)}
        chosen = np.array([numbered.get(text, len(self.categories)) for text in texts], dtype=np.int64)
        unknown = np.flatnonzero(chosen == len(self.categories))
        if len(unknown) and not self.has_other:
            example = quoted(texts[unknown[0]]) if texts[unknown[0]] else "a missing one"
            _log.warning(
                "%s, column %s: %d of %d values, such as %s, are not in the training rows; their inputs are 0",
                column.where,
                quoted(self.name),
                len(unknown),
                len(texts),
                example,
            )
        return np.eye(len(self.categories) + 1, self.width, dtype=np.float32)[chosen]


InputColumn = Number | Date | Category
"""An encoded column; all kinds have `name`, `kind`, `width`, `has_missing`, `features()` and `encode(column)`."""

KINDS: dict[str, type[InputColumn]] = {kind.kind: kind for kind in (Number, Date, Category)}
"""The classes of columns by their name in JSON."""


def category_texts(column: Column, is_boolean: bool) -> list[str]:
    """Return the category of each row, with an empty text for a missing value.

    Raises:
        InputError: a value of a boolean column is not a boolean.
    """
    return truths(column) if is_boolean else column.texts


def days_of(column: Column) -> np.ndarray:
    """Parse a column of dates to days since 1970 ``[row]``, with NaN for missing values.

    Raises:
        InputError: a value is not a date.
    """
    return seconds(column) / _DAY


def column_to_plain(column: InputColumn) -> dict[str, Any]:
    """Convert a column to plain values for JSON."""
    return {"kind": column.kind, **asdict(column)}


def _circles(days: np.ndarray, how_many: int) -> np.ndarray:
    """Return sine and cosine of the time in the year, the week (from Monday) and the day ``[row, 2 * how_many]``."""
    dates = np.floor(days).astype("datetime64[D]")
    year_begins = dates.astype("datetime64[Y]").astype("datetime64[D]").astype(float)
    turns = [(days - year_begins) / _YEAR, (np.floor(days) + 3) % 7 / 7, days % 1][:how_many]
    angles = 2 * math.pi * np.stack(turns, 1)
    return np.stack([np.sin(angles), np.cos(angles)], 2).reshape(len(days), -1)
