"""The section on conformal intervals: their coverage and width, compared with the intervals of the forecast."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bayes_share.errors import InputError
from bayes_share.evaluation.conformal.coverage import IntervalCoverage, interval_coverage
from bayes_share.evaluation.conformal.from_predictions import INTERVAL_METHODS, conformal_intervals
from bayes_share.evaluation.conformal.guarantee import Range, range_of_coverage, verdict
from bayes_share.evaluation.conformal.threshold import check_alpha
from bayes_share.evaluation.numbers.central_intervals import central_interval
from bayes_share.evaluation.table import format_table
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.dot_drawing import Dots, dot_drawing
from bayes_share.reports.number_results import NumberResult, cell
from bayes_share.reports.provenance import held_out

LEVELS = (0.1, 0.05)
_SHOWN = LEVELS[0]  # level of the table by width
_AIM = f"{100 * (1 - _SHOWN):g} %"
_OWN = "own"
_TITLES = {"cqr": "CQR", "scaled": "scaled residuals"}
_THIRDS = ("narrowest", "middle", "widest")
_COVERAGE = (
    Column("coverage", "coverage [%]", ".1f", 100, about="test targets inside their interval"),
    Column("coverage_low", "95 % interval, from", ".1f", 100, about="confidence interval of the coverage, lower end"),
    Column("coverage_high", "to", ".1f", 100, about="upper end of the interval"),
)
_WHOSE = (Column("run", "run"), Column("method", "intervals"))
_COLUMNS = (
    *_WHOSE,
    Column("aim", "nominal [%]", ".6g", 100, about="1 − α, the nominal coverage; guaranteed for conformal intervals"),
    Column("calibrated", "calibrated on", ",", about="validation examples to which the intervals were fitted"),
    _COVERAGE[0],
    Column(
        "chance_low",
        "expected, from",
        ".1f",
        100,
        about="range that holds 95 % of coverages if the nominal coverage is met; it accounts for the random choice of "
        "test examples, and for conformal intervals of calibration examples",
    ),
    Column("chance_high", "to", ".1f", 100, about="upper end of the range"),
    Column("width", "mean width", ".4g", about="in units of the targets; at equal coverage, smaller is better"),
)
_LEAD = (
    "Conformal intervals contain the target with the guaranteed probability, even if the predicted uncertainty "
    "is wrong. The guarantee applies to all examples together, not separately to those with narrow or wide "
    "intervals."
)
_NOTE = (
    "own: the central interval of the forecast. CQR (conformalised quantile regression): the same interval with "
    "both ends moved outwards by a constant. Scaled residuals: the mean ± a constant number of predicted "
    "standard deviations. Both constants are fitted to n validation examples; the expected coverage over validation "
    "and test examples is at least the nominal coverage, and at most 1/(n + 1) above it."
)


@dataclass(frozen=True, eq=False)
class Found:
    """The coverage of the intervals of one method at one level.

    Args:
        name: the name of the run.
        method: the display name of the method.
        alpha: the allowed miscoverage.
        num_calibrated: the number of validation examples used for calibration; None for intervals of the forecast.
        coverage: coverage and width on the test examples.
        num_targets: the number of targets of each example.
    """

    name: str
    method: str
    alpha: float
    num_calibrated: int | None
    coverage: IntervalCoverage
    num_targets: int

    @property
    def by_chance(self) -> Range | None:
        """The range that holds 95 % of coverages if the guarantee holds; None for several (dependent) targets."""
        if self.num_targets > 1:
            return None
        return range_of_coverage(self.alpha, self.num_calibrated, self.coverage.overall.count)


def intervals_at_levels(result: NumberResult, levels: Sequence[float]) -> Iterator[Found | InputError]:
    """Yield the coverage of the forecast's own and of both conformal intervals at each level, or the reasons for gaps.

    Args:
        result: a result with validation predictions.
        levels: values of alpha, the allowed miscoverage.
    """
    try:
        validation = result.unchosen
    except InputError as error:
        yield InputError(f"{result.name}: {error}.")
        return
    assert validation is not None
    targets, count = result.test.targets, len(validation.targets)
    several = targets[0].numel()
    for alpha in levels:
        low, high = central_interval(result.test.predictive, 1 - alpha)
        yield Found(result.name, _OWN, alpha, None, interval_coverage(low, high, targets), several)
    for method in INTERVAL_METHODS:
        for alpha in levels:
            try:
                ends = conformal_intervals(validation, result.test, method, alpha)
            except InputError as error:  # the variance does not exist
                yield InputError(f"{result.name}, {_TITLES[method]}: {error}.")
                break
            yield Found(result.name, _TITLES[method], alpha, count, interval_coverage(*ends, targets), several)


def number_conformal(results: Sequence[NumberResult]) -> Section | None:
    """Build the section on conformal intervals. Return None if there are no validation predictions."""
    may_have = [one for one in results if one.validation is not None or one.run is not None]
    if not may_have:
        return None
    each = [one for result in may_have for one in intervals_at_levels(result, LEVELS)]
    found = [one for one in each if isinstance(one, Found)]
    names = {one.name for one in found}
    note = " ".join(
        [
            _NOTE,
            *held_out([one for one in may_have if one.name in names]),
            *(str(one) for one in each if isinstance(one, InputError)),
        ]
    )
    if not found:
        return Section("conformal", "Conformal intervals", [note], [])
    shown = [one for one in found if one.alpha == _SHOWN]
    blocks: list[Block] = [
        Table("conformal", "Coverage and width", _COLUMNS, [*map(_row, found)], note),
        *_figure(shown),
        _by_width(shown),
    ]
    return Section("conformal", "Conformal intervals", [_LEAD, *_judgement(found)], blocks)


def conformal_table(results: Sequence[NumberResult], levels: Sequence[float] = LEVELS) -> str:
    """Format the coverage and width of intervals for the terminal.

    Args:
        results: results with validation predictions.
        levels: values of alpha, the allowed miscoverage.

    Raises:
        InputError: if a level is out of range, or a run used all of its validation examples for selection.
    """
    for alpha in levels:
        check_alpha(alpha)
    found: list[Found] = []
    for one in (one for result in results for one in intervals_at_levels(result, levels)):
        if isinstance(one, InputError):
            raise InputError(str(one).rstrip("."))
        found.append(one)
    rows: list[dict[str, str | int | float | None]] = [
        {
            "run": one.name,
            "intervals": one.method,
            "nominal": 1 - one.alpha,
            "calibrated on": one.num_calibrated,
            "coverage": one.coverage.overall.coverage.value,
            "expected from": None if one.by_chance is None else one.by_chance.low,
            "to": None if one.by_chance is None else one.by_chance.high,
            "width": one.coverage.width.value,
        }
        for one in found
    ]
    titles = [title for title in rows[0] if any(row[title] is not None for row in rows)]
    lead = (
        "Intervals: coverage of the test targets, with the range that holds 95 % of coverages if the nominal "
        "coverage is met"
    )
    return "\n\n".join([f"{lead}:", format_table(titles, rows), *_judgement(found)])


def _judgement(found: Sequence[Found]) -> list[str]:
    """Return a sentence on whether conformal intervals agree with the guarantee; an empty list without a guarantee."""
    judged = [
        (
            f"{one.method} of {one.name} at {100 * (1 - one.alpha):.6g} %",
            one.coverage.overall.coverage.value,
            one.by_chance,
        )
        for one in found
        if one.num_calibrated is not None and one.by_chance is not None
    ]
    if not judged:
        return []
    missed = [
        f"{one.name} at {100 * (1 - one.alpha):.6g} %"
        for one in found
        if one.num_calibrated is None
        and one.by_chance is not None
        and one.coverage.overall.coverage.value not in one.by_chance
    ]
    own = f"The forecast's own intervals miss the nominal coverage: {', '.join(missed)}."
    return [verdict(judged), *([own] if missed else [])]


def _row(one: Found) -> dict[str, Cell]:
    coverage = one.coverage.overall.coverage
    return {
        "run": Cell(one.name),
        "method": Cell(one.method),
        "aim": Cell(1 - one.alpha),
        "calibrated": Cell(one.num_calibrated),
        "coverage": Cell(coverage.value),
        "chance_low": Cell(None if one.by_chance is None else one.by_chance.low),
        "chance_high": Cell(None if one.by_chance is None else one.by_chance.high),
        "width": cell(one.coverage.width),
    }


def _figure(shown: Sequence[Found]) -> list[Figure]:
    """Draw a panel for each run whose intervals have different widths."""
    panels, methods = [], list(dict.fromkeys(one.method for one in shown))
    for name in dict.fromkeys(one.name for one in shown):
        dots = []
        for one in shown:
            groups = [group.coverage for group in one.coverage.by_width.values()]
            if one.name == name and len(groups) == len(_THIRDS):
                values, low, high = ([100 * getattr(each, end) for each in groups] for end in ("value", "low", "high"))
                dots.append(Dots(one.method, values, low, high, methods.index(one.method)))
        if dots:
            words = "; ".join(f"{each.name} {', '.join(f'{value:.1f}' for value in each.y)}" for each in dots)
            draw = dot_drawing(
                name, "third of the intervals, by width", "coverage [%]", _THIRDS, dots, 100 * (1 - _SHOWN)
            )
            panels.append(Panel(f"conformal-{name}", f"Coverage [%] of {name} by width of the interval: {words}", draw))
    caption = (
        f"Dashed: the nominal coverage of {_AIM}. Error bars are 95 % intervals. Low coverage of the narrowest "
        "intervals means that the forecast is overconfident where its uncertainty is small."
    )
    return [Figure("Coverage by width", panels, caption, methods)] if panels else []


def _by_width(shown: Sequence[Found]) -> Table:
    columns = (
        *_WHOSE,
        Column("narrowest", "width, from", ".4g"),
        Column("widest", "to", ".4g"),
        Column("examples", "examples", ","),
        *_COVERAGE,
    )
    rows = [
        {
            "run": Cell(one.name),
            "method": Cell(one.method),
            "narrowest": Cell(least),
            "widest": Cell(most),
            "examples": Cell(group.count),
            "coverage": Cell(group.coverage.value),
            "coverage_low": Cell(group.coverage.low),
            "coverage_high": Cell(group.coverage.high),
        }
        for one in shown
        for (least, most), group in one.coverage.by_width.items()
    ]
    note = "Test examples divided into thirds by the width of their interval; one row if all widths are equal."
    return Table("conformal-widths", f"Coverage by width, for a nominal coverage of {_AIM}", columns, rows, note)
