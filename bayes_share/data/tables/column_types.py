"""Infer the type of a column from its texts, and parse them."""

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from bayes_share.data.tables.table import Column, Kind, quoted

_log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 2**53  # integers up to this are exact in float64

_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?inf(inity)?", re.IGNORECASE)
_ZERO_FIRST = re.compile(r"[-+]?0[0-9]")
_WITH_COMMA = re.compile(r"[-+]?[0-9]+([.,'][0-9]+)*")
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[-+][0-9]{2}:?[0-9]{2})?)?"
)
_OTHER_DATE = re.compile(
    r"([0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{4}|[0-9]{4}[./][0-9]{1,2}[./][0-9]{1,2})([T ][0-9:. ]{0,20})?"
)
_TRUTH = {"true": "true", "yes": "true", "y": "true", "t": "true"}
_TRUTH |= {"false": "false", "no": "false", "n": "false", "f": "false"}
_WORDS = ({"true", "false"}, {"yes", "no"})
_LETTERS = ({"t", "f"}, {"y", "n"})  # one letter alone is a category


def kind_of(column: Column) -> Kind:
    """Infer the kind of a column from the values of all rows.

    Numbers with leading zeros, or with too many digits to be exact, are codes and count as text. Dates must be in
    ISO 8601 format.

    Raises:
        InputError: all values are missing, or numbers or dates have an ambiguous format.
    """
    distinct = set(column.texts) - {""}
    if not distinct:
        raise column.error("all values are missing; remove it")
    if column.declared is not None:
        return column.declared
    lower = {text.lower() for text in distinct} if len(distinct) <= 6 else set()
    if lower and (any(lower <= words for words in _WORDS) or lower in _LETTERS):
        return "boolean"
    numeric = {text for text in distinct if _NUMBER.fullmatch(text) or _INFINITE.fullmatch(text)}
    if len(numeric) == len(distinct):
        return "text" if any(map(_is_code, numeric)) else "number"
    if all(map(_DATE.fullmatch, distinct)):
        return "date"
    if all(_WITH_COMMA.fullmatch(text) or text in numeric for text in distinct) and any("," in one for one in distinct):
        row = next(index for index, text in enumerate(column.texts) if "," in text)
        raise column.fault(
            row, f"numbers such as {quoted(column.texts[row])} have a comma; write 1234.5, with a point for decimals"
        )
    if all(map(_OTHER_DATE.fullmatch, distinct)):
        row = next(index for index, text in enumerate(column.texts) if text)
        raise column.fault(row, f"write dates such as {quoted(column.texts[row])} as year-month-day, 2020-12-31")
    return "text"


def warn_of_texts_among_numbers(column: Column) -> None:
    """Warn if most categories of a column are numbers: the first other text may stand for a missing value."""
    distinct = set(column.texts) - {""}
    odd = {text for text in distinct if not _NUMBER.fullmatch(text)}
    if odd and 2 * len(odd) < len(distinct) and not any(map(_is_code, distinct - odd)):
        row = next(index for index, text in enumerate(column.texts) if text in odd)
        fault = column.fault(
            row, f"{quoted(column.texts[row])} is not a number, so the numbers of the column are read as"
        )
        _log.warning("%s names of categories; leave a cell empty if its value is missing", fault)


def numbers(column: Column) -> np.ndarray:
    """Parse a column of numbers to float64 ``[row]``, with NaN for missing values.

    Raises:
        InputError: a value is not a finite number.
    """
    return _each(column, _number)


def seconds(column: Column) -> np.ndarray:
    """Parse a column of dates to seconds since 1970 (UTC), float64 ``[row]``, with NaN for missing values.

    Raises:
        InputError: a value is not a date.
    """
    return _each(column, _second)


def truths(column: Column) -> list[str]:
    """Parse a boolean column to "true", "false", or an empty text for a missing value.

    Raises:
        InputError: a value is not a boolean.
    """
    try:
        return [_TRUTH[text.lower()] if text else "" for text in column.texts]
    except KeyError:
        row = next(index for index, text in enumerate(column.texts) if text and text.lower() not in _TRUTH)
        raise column.fault(row, f"{quoted(column.texts[row])} is neither true nor false") from None


def whole(values: np.ndarray) -> bool:
    """Return whether all values ``[row]`` are integers that are exact in float64."""
    return bool(((values == np.floor(values)) & (np.abs(values) <= _EXACT)).all())


def _each(column: Column, read: Callable[[str], float]) -> np.ndarray:
    values = np.empty(len(column.texts))
    for row, text in enumerate(column.texts):
        try:
            values[row] = read(text) if text else np.nan
        except ValueError as error:
            raise column.fault(row, f"{quoted(text)} {error}") from None
    return values


def _number(text: str) -> float:
    if _NUMBER.fullmatch(text):
        if np.isfinite(value := float(text)):
            return value
        raise ValueError("is too large for a number")
    if _INFINITE.fullmatch(text):
        raise ValueError("is infinite; leave the cell empty if the value is missing")
    raise ValueError("is not a number; leave the cell empty if the value is missing")


def _second(text: str) -> float:
    if not _DATE.fullmatch(text):
        raise ValueError("is not a date; write it as 2020-12-31 or 2020-12-31T23:59")
    try:
        date = datetime.fromisoformat(text)
        return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH).total_seconds()
    except (ValueError, OverflowError):
        raise ValueError("is a date that does not exist") from None


def _is_code(text: str) -> bool:
    """Return whether a number is a code that parsing would alter, such as a postcode, an article number or a hash."""
    is_long = len(text) > 15 and text.lstrip("+-").isdigit() and abs(float(text)) >= _EXACT
    return is_long or bool(_ZERO_FIRST.match(text))
