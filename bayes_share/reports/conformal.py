"""The section on conformal sets: their coverage and size."""

import math
from collections.abc import Sequence

from bayes_share.analysis.conformal import Found, empty_sets, judgement, sets_at_levels
from bayes_share.errors import InputError
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.dot_drawing import Dots, dot_drawing
from bayes_share.reports.number_results import cell
from bayes_share.reports.overview import RUN
from bayes_share.reports.provenance import held_out
from bayes_share.reports.results import Result

_LEVELS = (0.1, 0.05)
_SHOWN = _LEVELS[0]  # level of the tables by class and by size
_NOMINAL = f"for a nominal coverage of {100 * (1 - _SHOWN):g} %"
_COLUMNS = (
    RUN,
    Column("method", "method"),
    Column("aim", "nominal [%]", ".6g", 100, about="1 − α, the guaranteed coverage"),
    Column("calibrated", "calibrated on", ",", about="validation examples to which the threshold was fitted"),
    Column("coverage", "coverage [%]", ".1f", 100, about="test examples whose set contains the right class"),
    Column(
        "chance_low",
        "expected, from",
        ".1f",
        100,
        about="range that holds 95 % of coverages if the guarantee holds; it accounts for the random choice of "
        "calibration and test examples",
    ),
    Column("chance_high", "to", ".1f", 100, about="upper end of the range"),
    Column("size", "mean set size", ".3f", about="mean size of the sets; at equal coverage, smaller is better"),
    Column("least", "lowest class coverage [%]", ".1f", 100, about="coverage of the class with the lowest coverage"),
)
_OF_GROUPS = (
    Column("coverage", "coverage [%]", ".1f", 100, about="test examples whose set contains the right class"),
    Column("coverage_low", "95 % interval, from", ".1f", 100, about="Clopper–Pearson interval of the share"),
    Column("coverage_high", "to", ".1f", 100, about="upper end of the interval"),
)
_LEAD = (
    "Conformal prediction gives each test example a set of classes. For any network, the set contains the right "
    "class with the guaranteed probability, on average over examples from the distribution of the validation "
    "examples. The guarantee does not hold separately for each class or set size. LAC gives the smallest sets "
    "on average; the size of APS sets follows the uncertainty of each example more closely."
)
_NOTE = (
    "If there are at least 40 validation examples, a temperature is fitted to one half of them, and the threshold to "
    "the other half. With n examples for the threshold, the expected coverage over validation and test examples is at "
    "least the nominal coverage, and at most 1/(n + 1) above it."
)


def conformal(runs: Sequence[Result]) -> Section | None:
    """Build the section on conformal sets.

    It contains only reasons if every run used all of its validation examples for selection. It is None if there are no
    validation examples, or if examples have several positions, which are not exchangeable.
    """
    if any(run.test.has_positions for run in runs):
        return None
    found: dict[str, list[Found]] = {}
    reasons = []
    for run in runs:
        try:
            if (validation := run.unchosen) is not None:
                found[run.name] = list(sets_at_levels(run.name, validation, run.test, _LEVELS))
        except InputError as error:
            reasons.append(f"{run.name}: {error}.")
    every = [one for of_run in found.values() for one in of_run]
    if not every and not reasons:
        return None
    if not every:
        return Section("conformal", "Conformal sets", reasons, [])
    shown = [one for one in every if one.alpha == _SHOWN]
    note = " ".join([*held_out([run for run in runs if run.name in found]), _NOTE, *reasons])
    table = Table("conformal", "Coverage and size", _COLUMNS, [*map(_row, every)], note)
    blocks: list[Block] = [table, _figure(shown), _by_class(shown), _by_size(shown)]
    return Section("conformal", "Conformal sets", [_LEAD, judgement(every), *empty_sets(every)], blocks)


def _row(one: Found) -> dict[str, Cell]:
    coverage = one.coverage.overall.coverage
    values = {
        "aim": 1 - one.alpha,
        "calibrated": one.num_calibrated,
        "coverage": coverage.value,
        "chance_low": one.by_chance.low,
        "chance_high": one.by_chance.high,
        "least": min(group.coverage.value for group in one.coverage.by_class.values()),
    }
    cells = {key: Cell(value) for key, value in values.items()}
    return {"run": Cell(one.name), "method": Cell(one.method), **cells, "size": cell(one.coverage.size)}


def _figure(shown: Sequence[Found]) -> Figure:
    names = list(dict.fromkeys(one.name for one in shown))
    classes = sorted({label for one in shown for label in one.coverage.by_class})
    aim = 1 - _SHOWN
    panels = []
    for method in dict.fromkeys(one.method for one in shown):
        dots = [_dots(one, classes, names.index(one.name)) for one in shown if one.method == method]
        there = {one.name: [value for value in one.y if not math.isnan(value)] for one in dots}
        words = ", ".join(f"{name} from {min(values):.1f} to {max(values):.1f}" for name, values in there.items())
        names_of_classes = [shown[0].classes[label] for label in classes]
        draw = dot_drawing(f"{method}, by class", "class", "coverage [%]", names_of_classes, dots, 100 * aim)
        panels.append(Panel(f"conformal-{method}", f"Coverage [%] of each class by {method}: {words}", draw))
    caption = (
        f"Dashed: the guaranteed coverage of {100 * aim:g} %, which applies to all examples together, so that "
        "classes may lie above or below it. Error bars, shown for few classes, are 95 % intervals."
    )
    return Figure("Coverage by class", panels, caption, names)


def _dots(one: Found, classes: Sequence[int], style: int) -> Dots:
    """Make dots for the coverage of each class in percent; NaN for a class without test examples."""
    found = [one.coverage.by_class[label].coverage if label in one.coverage.by_class else None for label in classes]
    y, low, high = (
        [math.nan if each is None else 100 * getattr(each, end) for each in found] for end in ("value", "low", "high")
    )
    return Dots(one.name, y, low, high, style)


def _by_class(shown: Sequence[Found]) -> Table:
    classes = sorted({label for one in shown for label in one.coverage.by_class})
    rows = []
    for label in classes:
        row = {"class": Cell(shown[0].classes[label])}
        for one in shown:
            if (group := one.coverage.by_class.get(label)) is not None:
                row[f"{one.method}/{one.name}"] = Cell(group.coverage.value, group.coverage.error)
        rows.append(row)
    columns = [Column("class", "class"), *(_column(one) for one in shown)]
    return Table("conformal-classes", f"Coverage [%] by class, {_NOMINAL}", columns, rows)


def _by_size(shown: Sequence[Found]) -> Table:
    columns = (
        RUN,
        Column("method", "method"),
        Column("size", "classes in the set"),
        Column("examples", "examples", ","),
        *_OF_GROUPS,
    )
    rows = [
        {
            "run": Cell(one.name),
            "method": Cell(one.method),
            "size": Cell(size),
            "examples": Cell(group.count),
            "coverage": Cell(group.coverage.value),
            "coverage_low": Cell(group.coverage.low),
            "coverage_high": Cell(group.coverage.high),
        }
        for one in shown
        for size, group in one.coverage.by_size.items()
    ]
    note = "Coverage that decreases with set size means that the network is overconfident on hard examples."
    return Table(
        "conformal-sizes",
        f"Coverage by set size, {_NOMINAL}",
        columns,
        rows,
        note,
    )


def _column(one: Found) -> Column:
    return Column(f"{one.method}/{one.name}", f"{one.name}, {one.method}", ".1f", 100)
