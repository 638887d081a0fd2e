"""The section on the least expected examples, with their inputs if these are given."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers.central_intervals import central_interval
from bayes_share.evaluation.scores import per_image
from bayes_share.io.terminal import printable
from bayes_share.reports.document import Cell, Column, Section, Table
from bayes_share.reports.number_results import COVERAGE, NumberResult
from bayes_share.reports.results import Result

_SHOWN = 10
_MOST_INPUTS = 12  # maximum number of input columns, to keep the table readable
_LONGEST_NAME = 100  # maximum length of a name in an error message, in characters

Inputs = Mapping[str, np.ndarray]
"""Arrays of numbers or texts, ``[example]``, by name."""


def as_inputs(given: Any, examples: int) -> Inputs:
    """Convert inputs of the test examples given by the user.

    Args:
        given: None; a mapping or table of columns, with a number or text for each example; or an array
            ``[example, input]``, whose inputs are named x0, x1 and so on.
        examples: the number of test examples.

    Raises:
        InputError: if the inputs have another type or another number of examples.
    """
    if given is None:
        return {}
    if hasattr(given, "keys") and hasattr(given, "__getitem__"):
        return {str(name): _column(printable(name, _LONGEST_NAME), given[name], examples) for name in given}
    if not isinstance(given, Tensor | np.ndarray):
        raise InputError(f'inputs must be a dict, such as {{"age": ages}}, or an array, not {type(given).__name__}')
    values = _array(given)
    columns = values[:, None] if values.ndim == 1 else values
    if columns.ndim != 2:
        raise InputError(f"an array of inputs must be [example, input], and has the shape {list(columns.shape)}")
    return {f"x{i}": _column(f"x{i}", columns[:, i], examples) for i in range(columns.shape[1])}


def least_expected_targets(results: Sequence[NumberResult], inputs: Inputs) -> Section | None:
    """List the targets with the lowest density. Return None if examples have several targets or there is no density."""
    tables = []
    for one in results:
        if "nll" not in one.terms or one.test.targets.ndim > 1:
            continue
        found = one.test.predictive
        low, high = central_interval(found, COVERAGE)
        (median,) = found.quantile([0.5])
        errors = (one.test.targets - found.mean) / found.stddev.nan_to_num(math.nan, math.nan)
        rows = [
            {
                "example": Cell(str(i) if one.test.names is None else one.test.names[i]),
                "target": Cell(one.test.targets[i].item()),
                "median": Cell(median[i].item()),
                "low": Cell(low[i].item()),
                "high": Cell(high[i].item()),
                "error": _number(errors[i].item()),
                "nll": Cell(one.terms["nll"][i].item()),
                **_cells(inputs, i),
            }
            for i in one.terms["nll"].argsort(descending=True, stable=True)[:_SHOWN].tolist()
        ]
        columns = (
            Column("example", "example"),
            Column("target", "target", ".4g"),
            Column("median", "median", ".4g"),
            Column("low", f"{COVERAGE:.0%} interval, from", ".4g"),
            Column("high", "to", ".4g"),
            Column("error", "error [sd]", ".2f", about="target less mean, in predictive standard deviations"),
            Column("nll", "NLL [nat]", ".3f"),
        )
        title = f"{one.name}: the least expected targets"
        tables.append(Table(f"worst-{one.name}", title, [*columns, *_columns(inputs)], rows, _note(inputs)))
    lead = "The test examples whose target had the lowest density under the forecast, the lowest first."
    return Section("worst", "Least expected examples", [lead], tables) if tables else None


def least_expected_labels(results: Sequence[Result], inputs: Inputs) -> Section | None:
    """List the labels with the lowest probability.

    Return None if there are no inputs, or if examples have several labels or positions.
    """
    if not inputs:
        return None
    tables = []
    for one in results:
        if one.test.num_problems > 1 or one.test.has_positions:
            continue
        confidence, predicted = one.probs.max(-1)
        ((_, problem),) = one.problems
        losses, names = per_image(problem.log_probs, problem.labels)["nll"], problem.shown_classes
        rows = [
            {
                "example": Cell(str(i)),
                "label": Cell(names[int(problem.labels[i])]),
                "predicted": Cell(names[int(predicted[i])]),
                "confidence": Cell(confidence[i].item()),
                "nll": Cell(losses[i].item()),
                **_cells(inputs, i),
            }
            for i in losses.argsort(descending=True, stable=True)[:_SHOWN].tolist()
        ]
        columns = (
            Column("example", "example"),
            Column("label", "right class"),
            Column("predicted", "predicted class"),
            Column("confidence", "its probability [%]", ".1f", 100),
            Column("nll", "NLL [nat]", ".3f"),
        )
        title = f"{one.name}: the least expected labels"
        tables.append(Table(f"worst-{one.name}", title, [*columns, *_columns(inputs)], rows, _note(inputs)))
    lead = "The test examples whose right class had the lowest probability, the lowest first."
    return Section("worst", "Least expected examples", [lead], tables) if tables else None


def _columns(inputs: Inputs) -> list[Column]:
    return [
        Column(_key(name), name, ".15g" if values.dtype.kind in "iu" else ".6g")
        for name, values in list(inputs.items())[:_MOST_INPUTS]
    ]


def _cells(inputs: Inputs, example: int) -> dict[str, Cell]:
    return {_key(name): _cell(values[example]) for name, values in list(inputs.items())[:_MOST_INPUTS]}


def _key(name: str) -> str:
    """Return the key of the column of an input, which cannot collide with other columns."""
    return f"input {name}"


def _note(inputs: Inputs) -> str:
    return f"The first {_MOST_INPUTS} of {len(inputs)} inputs." if len(inputs) > _MOST_INPUTS else ""


def _cell(value: object) -> Cell:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return Cell(None if value is None else str(value))
    return _number(float(value))


def _number(value: float) -> Cell:
    return Cell(None if math.isnan(value) else value)


def _column(name: str, values: object, examples: int) -> np.ndarray:
    found = _array(values)
    if found.shape != (examples,):
        raise InputError(
            f"the input {name} must be one value for each of the {examples} test examples, and has the shape "
            f"{list(found.shape)}"
        )
    return found


def _array(values: object) -> np.ndarray:
    if isinstance(values, Tensor):
        plain = values.detach().cpu()
        return (plain.float() if plain.is_floating_point() and plain.itemsize < 4 else plain).numpy()
    try:
        return np.asarray(values)
    except ValueError:  # lists of different length
        raise InputError("inputs must be numbers or texts, one for each test example") from None
