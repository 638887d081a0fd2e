"""Conformal sets: the classes that an example may have, with a coverage that is promised."""

import math
from collections.abc import Sequence

from bayes_share.analysis.conformal import Found, judgement, sets_at_levels
from bayes_share.errors import InputError
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.dot_drawing import Dots, dot_drawing
from bayes_share.reports.overview import RUN
from bayes_share.reports.results import Result

BY_CHANCE = (
    Column(
        "chance_low",
        "by chance, from",
        ".1f",
        100,
        about="where coverage is in 95 % of cases if the promise is kept: it varies with the calibration examples and "
        "with the test examples",
    ),
    Column("chance_high", "to", ".1f", 100, about="the upper end of that range"),
)
"""Where a coverage is expected."""

_LEVELS = (0.1, 0.05)
_SHOWN = _LEVELS[0]  # by class and by size
_COLUMNS = (
    RUN,
    Column("method", "method"),
    Column("aim", "aim [%]", ".3g", 100, about="1 − α, the coverage that is promised"),
    Column("calibrated", "calibrated on", ",", about="validation examples that the threshold was fitted to"),
    Column("coverage", "coverage [%]", ".1f", 100, about="test examples whose set holds the right class"),
    *BY_CHANCE,
    Column("size", "classes in a set", ".3f", about="the mean; at the same coverage, fewer say more"),
    Column("least", "least of a class [%]", ".1f", 100, about="the coverage of the class where it is lowest"),
)
_OF_GROUPS = (
    Column("coverage", "coverage [%]", ".1f", 100, about="test examples whose set holds the right class"),
    Column("coverage_low", "95 % interval, from", ".1f", 100, about="of that share, by Clopper and Pearson"),
    Column("coverage_high", "to", ".1f", 100, about="the upper end of that interval"),
)
_LEAD = (
    "In place of one class, each test example gets a set of classes. Whatever the network, the set holds the right "
    "class with the promised probability, over examples that are like the validation examples; not for each class or "
    "each size. "
    "LAC has the smallest sets on average, APS sets whose size follows the doubt more closely."
)
_NOTE = (
    "The threshold is fitted to validation examples on which neither epochs nor members were chosen: to half of them, "
    "as the temperature that is applied before is fitted to the other half. Where it is fitted to n examples, coverage "
    "is between 1 − α and 1 − α + 1/(n + 1) on average over validation and test examples."
)


def conformal(runs: Sequence[Result]) -> Section | None:
    """Coverage and size of the runs' sets; only why there are none where every run chose on all validation images.

    None where there are no validation images, or where examples have several positions, which are not exchangeable.
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
    note = " ".join([_NOTE, *reasons])
    table = Table("conformal", "Coverage and size", _COLUMNS, [*map(_row, every)], note)
    blocks: list[Block] = [table, _figure(shown), _by_class(shown), _by_size(shown)]
    return Section("conformal", "Conformal sets", [_LEAD, judgement(every)], blocks)


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
    size = Cell(one.coverage.size.value, one.coverage.size.error)
    cells = {key: Cell(value) for key, value in values.items()}
    return {"run": Cell(one.name), "method": Cell(one.method), **cells, "size": size}


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
        f"Dashed: the promise of {100 * aim:g} %, which is of all examples together: classes may be above it and "
        "below. Bars, where there are few classes, are intervals of 95 %."
    )
    return Figure("Coverage by class", panels, caption, names)


def _dots(one: Found, classes: Sequence[int], style: int) -> Dots:
    """The coverage of each class in per cent; NaN of those that no test example has."""
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
    return Table("conformal-classes", f"Coverage [%] by class, of {1 - _SHOWN:.0%}", columns, rows)


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
    note = "Coverage that falls as sets grow says that the network is surer of hard examples than it should be."
    return Table("conformal-sizes", f"Coverage by the size of the set, of {1 - _SHOWN:.0%}", columns, rows, note)


def _column(one: Found) -> Column:
    return Column(f"{one.method}/{one.name}", f"{one.name}, {one.method}", ".1f", 100)
