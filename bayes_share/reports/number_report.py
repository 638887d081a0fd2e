"""Building a report on predictions of numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.numbers.pictures import coverage_drawing, intervals_drawing, noise_drawing, pit_drawing
from bayes_share.evaluation.numbers.recalibration import fit_pit_map, fit_variance_scaling
from bayes_share.evaluation.numbers.scores import number_scores
from bayes_share.evaluation.numbers.selective import ErrorCoverage, error_coverage
from bayes_share.reports.convergence import convergence
from bayes_share.reports.costs import costs, repetition
from bayes_share.reports.data import data
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Report, Section, Table
from bayes_share.reports.drawing import Line, line_drawing
from bayes_share.reports.least_expected import as_inputs, least_expected_targets
from bayes_share.reports.number_conformal import number_conformal
from bayes_share.reports.number_results import (
    COVERAGE,
    SCORES,
    NumberResult,
    cell,
    check_same_targets,
    checked_validation,
)
from bayes_share.reports.provenance import counted
from bayes_share.reports.ranking import ranking
from bayes_share.reports.run_record import RunRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_RUN = Column("run", "run")
_RANKED = {
    "nll": "nll",
    "rmse": "squared_error",
    "mae": "absolute_error",
    "crps": "crps",
    "interval_score": "interval_score",
}


def build_number_report(
    predictions: Mapping[str, NumberPredictions],
    validation: Mapping[str, object] | None = None,
    title: str = "Calibration report",
    inputs: object = None,
    runs: Sequence[tuple[str, RunRecord]] = (),
) -> Report:
    """Build the report on predictions of numbers or counts.

    Args:
        predictions: predictions for the test examples, by display name.
        validation: predictions for validation examples, by the same names; some or all can be missing.
        title: title of the report.
        inputs: inputs of the test examples, shown for the least expected targets; see `as_inputs`.
        runs: the runs that made predictions, by the same names.

    Raises:
        InputError: if the test examples differ, validation predictions are predictions of classes or have an unknown
            name, or the inputs do not match the test examples.
    """
    held_out = checked_validation(predictions, validation or {})
    known = dict(runs)
    results = [NumberResult(name, test, held_out.get(name), known.get(name)) for name, test in predictions.items()]
    check_same_targets(predictions)
    first = results[0].test.targets
    shown = as_inputs(inputs, len(first))
    sections = [
        _overview(results),
        data(runs),
        _calibration(results),
        _intervals(results),
        number_conformal(results),
        _sureness(results),
        least_expected_targets(results, shown),
        convergence(runs),
        costs(runs),
        repetition(runs),
    ]
    several = f" with {first[0].numel()} targets each" if first[0].numel() > 1 else ""
    on = dict.fromkeys(f" on {run.data}, target {run.config['target']}" for _, run in runs if run.config.get("target"))
    subtitle = f"{counted(results)}{next(iter(on), '')}: {len(first):,} test examples{several}"
    return Report(title, subtitle, [each for each in sections if each])


def _overview(results: Sequence[NumberResult]) -> Section:
    rows = [
        {"run": Cell(result.name), **{key: cell(found) for key, found in result.scores.items()}} for result in results
    ]
    lead = []
    for column in SCORES if len(results) > 1 else ():
        term = _RANKED.get(column.key)
        if term is None or any(term not in result.terms for result in results):
            continue
        scores: list[Any] = [row[column.key].value for row in rows]
        found = ranking(column, scores, [result.terms[term] for result in results])
        if found.is_clear:
            rows[found.best][column.key] = replace(rows[found.best][column.key], is_best=True)
        lead.append(
            found.sentence(column, [one.name for one in results], scores[found.best], in_units=term != "squared_error")
        )
    columns = [_RUN, *(column for column in SCORES if any(column.key in row for row in rows))]
    comparison = " Bold: significantly better than every other run, by paired differences over examples."
    note = (
        f"± is one standard error, from a bootstrap over test examples.{comparison * (len(results) > 1)} RMSE, "
        "MAE, CRPS, width and interval score are in units of the targets; coverage, width and interval score "
        f"refer to central {COVERAGE:.0%} intervals."
    )
    return Section("overview", "Overview", lead, [Table("overview", "Scores", columns, rows, note)])


def _calibration(results: Sequence[NumberResult]) -> Section:
    pits = [Panel(f"pit-{one.name}", _in_words(one), partial(_pit_drawing, one.name, one.pit)) for one in results]
    coverages = [
        Panel(f"coverage-{one.name}", f"Coverage of {one.name}", partial(_coverage_drawing, one.name, one.pit))
        for one in results
    ]
    caption = (
        "Probability integral transform (PIT): the predictive distribution function at each test target. A "
        "calibrated forecast has a flat histogram, an overconfident one a U shape, an underconfident one a "
        "hump, and a biased one a slope. The grey band has 95 % of the bars of a calibrated forecast."
    )
    below = (
        "Share of targets inside central intervals of each level. Below the diagonal, the forecast is overconfident. "
        "The grey band has 95 % of the points of a calibrated forecast."
    )
    blocks: list[Block] = [Figure("PIT", pits, caption), Figure("Coverage", coverages, below), *_recalibrated(results)]
    return Section("calibration", "Calibration", [], blocks)


def _in_words(one: NumberResult) -> str:
    share = one.scores["coverage"].value
    return f"PIT histogram of {one.name}; {share:.1%} of the targets are inside central {COVERAGE:.0%} intervals"


def _recalibrated(results: Sequence[NumberResult]) -> list[Block]:
    """Make a table of the scores before and after recalibration by maps fitted on validation predictions."""
    rows, reasons, counts = [], [], []
    for one in results:
        if one.validation is None:
            continue
        counts.append(f"{len(one.validation.targets):,}")
        forecasts = {"none": one.scores}
        for name, fit in (("variance scaling", fit_variance_scaling), ("isotonic", fit_pit_map)):
            try:
                calibrated = fit(one.validation.predictive, one.validation.targets)(one.test.predictive)
                forecasts[name] = number_scores(calibrated, one.test.targets, COVERAGE)
            except InputError as error:  # too few examples, or a distribution without a scale
                reasons.append(f"{one.name}, {name}: {error}.")
        for name, scores in forecasts.items():
            cells = {key: cell(found) for key, found in scores.items()}
            rows.append({"run": Cell(one.name), "map": Cell(name), **cells})
    if not rows:
        return []
    note = (
        f"Fitted to {' or '.join(dict.fromkeys(counts))} validation examples: one factor for all variances, or "
        "isotonic regression of the PIT, which has no density and therefore no NLL and no RMSE."
    )
    columns = (_RUN, Column("map", "recalibration"), *SCORES)
    return [Table("recalibration", "Before and after recalibration", columns, rows, " ".join([note, *reasons]))]


def _intervals(results: Sequence[NumberResult]) -> Section:
    panels = [
        Panel(
            f"intervals-{one.name}",
            f"Central {COVERAGE:.0%} intervals of {one.name} with the targets",
            partial(_intervals_drawing, one),
        )
        for one in results
    ]
    return Section("intervals", "Intervals", [], [Figure("Intervals and targets", panels, "Sorted by the median.")])


def _sureness(results: Sequence[NumberResult]) -> Section | None:
    """Build the section on selective prediction and on aleatoric and epistemic uncertainty."""
    known = [one for one in results if "squared_error" in one.terms and _has_variance(one)]
    if not known:
        return None
    curves = {one.name: error_coverage(one.test.predictive, one.test.targets) for one in known}
    rows = []
    for one in known:
        found = one.test.predictive
        values = {
            "area": curves[one.name].area,
            "aleatoric": found.aleatoric.sqrt().mean().item(),
            "epistemic": found.epistemic.sqrt().mean().item(),
        }
        rows.append({"run": Cell(one.name), **{key: Cell(value) for key, value in values.items()}})
    columns = (
        _RUN,
        Column(
            "area",
            "area under the RMSE curve",
            ".4g",
            better="lower",
            about="as a function of coverage; see the figure",
        ),
        Column("aleatoric", "aleatoric sd", ".4g", about="noise predicted by the components, averaged over targets"),
        Column(
            "epistemic",
            "epistemic sd",
            ".4g",
            about="standard deviation of the components' means, averaged over targets",
        ),
    )
    lines = [_line(name, curve, i) for i, (name, curve) in enumerate(curves.items())]
    draw = line_drawing("", "examples kept [%]", "RMSE", lines)
    words = ", ".join(f"{name} {curve.area:.4g}" for name, curve in curves.items())
    kept = Panel("error-coverage", f"RMSE over coverage; areas: {words}", draw)
    noise = [
        Panel(
            f"noise-{one.name}",
            f"Aleatoric against epistemic standard deviation of {one.name}",
            partial(_noise_drawing, one),
        )
        for one in known
    ]
    blocks: list[Block] = [
        Table("sureness", "Uncertainty", columns, rows),
        Figure(
            "RMSE and coverage",
            [kept],
            "Examples are rejected in order of decreasing predictive variance; only the most certain examples are "
            "kept on the left.",
            [one.name for one in known],
        ),
        Figure(
            "Aleatoric and epistemic uncertainty",
            noise,
            "One point for each target. Epistemic uncertainty is the disagreement between draws or members.",
        ),
    ]
    return Section("sureness", "Selective prediction and uncertainty", [], blocks)


def _has_variance(one: NumberResult) -> bool:
    return bool(one.test.predictive.variance.isfinite().all())


def _line(name: str, curve: ErrorCoverage, style: int) -> Line:
    return Line(name, curve.coverage.mul(100).tolist(), curve.rmse.tolist(), style)


def _pit_drawing(name: str, values: Tensor, with_legend: bool) -> "Drawing":
    return pit_drawing({name: values}, with_legend=with_legend)


def _coverage_drawing(name: str, values: Tensor, with_legend: bool) -> "Drawing":
    return coverage_drawing({name: values}, with_legend)


def _intervals_drawing(one: NumberResult, with_legend: bool) -> "Drawing":
    return intervals_drawing(one.test.predictive, one.test.targets, COVERAGE, one.name)


def _noise_drawing(one: NumberResult, with_legend: bool) -> "Drawing":
    return noise_drawing(one.test.predictive, one.name)
