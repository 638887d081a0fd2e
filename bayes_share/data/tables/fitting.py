"""Fit the encoding of a table on the training rows, with scikit-learn's transformers."""

import logging
from collections.abc import Sequence

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from bayes_share.data.tables.column_types import kind_of, numbers, warn_of_texts_among_numbers
from bayes_share.data.tables.columns import Category, Date, InputColumn, Number, Standardised, category_texts, days_of
from bayes_share.data.tables.encoder import TableEncoder
from bayes_share.data.tables.table import Column, Table, quoted
from bayes_share.data.tables.target import REAL, Target, class_names_of
from bayes_share.errors import InputError
from bayes_share.tensors.units import SQUARED

_log = logging.getLogger(__name__)

_MOST_CATEGORIES = 100  # categories with an input of their own
_NONE_TO_FIT = "all values are missing in the training rows; remove it"
_FEW = 20  # in more rows than this, texts that are all different are taken for names


def fit_encoder(table: Table, target: str, likelihood: str, left_out: Sequence[str], train: np.ndarray) -> TableEncoder:
    """Fit the encoding of a table's columns as inputs and targets.

    Numbers and dates are standardised; missing values are replaced by the median and indicated by an additional input.
    Categories are one-hot encoded; beyond 100, the rarest share one input. A text column whose values all differ is not
    used.

    Args:
        table: all rows, from which the kinds of the columns are inferred.
        target: the name of the target column.
        likelihood: the likelihood, from `choose_likelihood`.
        left_out: names of columns that are not inputs.
        train: indices ``[row]`` of the training rows; everything is fitted on these alone.

    Raises:
        InputError: a column cannot be an input or a target, or there are no inputs.
    """
    fitted = [
        found
        for name, column in table.columns.items()
        if name != target and name not in left_out and (found := _fit_column(column, train)) is not None
    ]
    if not fitted:
        raise InputError(f"{table.where}: there is no input column besides the target {quoted(target)}")
    in_order = sorted(fitted, key=lambda column: column.kind == Category.kind)  # categories last
    return TableEncoder(tuple(in_order), _fit_target(table.column(target), likelihood, train))


def _fit_column(column: Column, train: np.ndarray) -> InputColumn | None:
    kind = kind_of(column)
    if kind == "number":
        return Number(column.name, _standardised(column, numbers(column)[train]))
    if kind == "date":
        days = days_of(column)[train]
        has_time = bool((days[~np.isnan(days)] % 1).any())
        return Date(column.name, _standardised(column, days), has_time)
    warn_of_texts_among_numbers(column)
    texts = np.array(category_texts(column, kind == "boolean"), dtype=object)[train]
    there = texts[texts != ""]
    if not len(there):
        raise column.error(_NONE_TO_FIT)
    if kind == "text" and len(set(there)) == len(there) > _FEW:
        _log.warning(
            "%s, column %s is not used as an input: its texts are all different, like names",
            column.where,
            quoted(column.name),
        )
        return None
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=_MOST_CATEGORIES).fit(texts[:, None])
    rare = encoder.infrequent_categories_[0]
    has_other = rare is not None
    others = set(rare) if has_other else set()
    categories = tuple(text for text in encoder.categories_[0] if text not in others)
    return Category(column.name, kind == "boolean", categories, has_other)


def _standardised(column: Column, values: np.ndarray) -> Standardised:
    """Fit the standardisation on training values ``[row]``, with NaN for missing values."""
    has_missing = bool(np.isnan(values).any())
    if np.isnan(values).all():
        raise column.error(_NONE_TO_FIT)
    imputer = SimpleImputer(strategy="median").fit(values[:, None])
    mean, scale = _moments(column, imputer.transform(values[:, None])[:, 0])
    return Standardised(float(imputer.statistics_[0]), mean, scale, has_missing)


def _fit_target(column: Column, likelihood: str, train: np.ndarray) -> Target:
    kind = kind_of(column)
    if likelihood not in REAL:
        target = Target(column.name, likelihood, kind, class_names_of(column, likelihood))
        _check_trained(column, target, train)
        return target
    values = numbers(column)[train]
    if (values == values[0]).all():
        raise column.error(f"the targets of all training rows are {values[0]:g}, so there is nothing to learn")
    mean, scale = _moments(column, values)
    for is_wrong, unit in ((scale < SQUARED[0], "smaller"), (np.abs(numbers(column)).max() > SQUARED[1], "larger")):
        if is_wrong:
            raise column.error(f"the squares of its numbers are not representable in float64: use a {unit} unit")
    return Target(column.name, likelihood, kind, (), mean, scale)


def _check_trained(column: Column, target: Target, train: np.ndarray) -> None:
    """Raise an InputError if a class has no training row."""
    if target.class_names:
        classes = target.encode(column).flatten().long().numpy()
        missing = sorted(set(range(len(target.class_names))) - set(classes[train].tolist()))
        if missing:
            raise column.error(f"no training row has the class {quoted(target.class_names[missing[0]])}")


def _moments(column: Column, values: np.ndarray) -> tuple[float, float]:
    largest = np.abs(values).max()
    unit = largest if 0 < largest < SQUARED[0] else 1.0
    with np.errstate(all="ignore"):
        scaler = StandardScaler().fit(values[:, None] / unit)
    mean, scale = float(scaler.mean_[0]) * unit, float(scaler.scale_[0]) * (unit if scaler.var_[0] else 1.0)
    if not (np.isfinite(mean) and np.isfinite(scale)):
        raise column.error(f"its numbers are too large to standardise, up to {np.abs(values).max():g}")
    return mean, scale
