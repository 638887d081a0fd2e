"""Calibration: reliability diagrams side by side, calibration errors, post-hoc calibration, and human labels."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.binary import mean_over_labels
from bayes_share.evaluation.bootstrap_intervals import score_terms
from bayes_share.evaluation.calibration import reliability
from bayes_share.evaluation.calibration_estimates import ece_interval
from bayes_share.evaluation.human_labels import human_scores
from bayes_share.evaluation.pictures import reliability_drawing
from bayes_share.evaluation.posthoc import CalibrationMethod, calibrate
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.seed_statistics import estimate
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.overview import ECE, RUN, SCORES, SQUARED
from bayes_share.reports.results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_ERRORS = (
    Column("ece", "ECE", about="mean gap between confidence and accuracy over 15 bins of equal width; biased upwards"),
    Column("ece_low", "95 % interval of the ECE, from", about="for the ECE of the population, with these bins"),
    Column("ece_high", "to", about="upper end of the interval"),
    SQUARED,
    Column("adaptive_ece", "adaptive ECE", about="ECE over 15 bins with equal numbers of examples; biased upwards"),
    Column(
        "classwise_ece", "class-wise ECE", about="mean over classes of the ECE of the class probability; biased upwards"
    ),
    Column("mce", "MCE", about="largest gap of a bin; biased upwards"),
    Column("ace", "average CE", about="unweighted mean of the bins' gaps; biased upwards"),
)
_BIAS = (
    "All errors except the squared calibration error are biased upwards, because the noise within a bin does "
    "not cancel. The bias is larger with fewer examples and for less accurate runs. Runs are therefore compared "
    "by the squared calibration error only. The interval is a 95 % interval for the ECE that infinitely many "
    "examples would give. If it starts at 0, the run may be perfectly calibrated."
)
_HUMAN = (
    Column(
        "cross_entropy", "cross-entropy [nat]", better="lower", about="with respect to the distribution of human labels"
    ),
    Column("kl", "KL [nat]", better="lower", about="KL divergence of the predictions from the human labels"),
    Column(
        "total_variation",
        "total variation",
        better="lower",
        about="total variation distance: half the sum of absolute differences",
    ),
    Column(
        "human_ece",
        "ECE against humans",
        about="accuracy here is the share of people who chose the predicted class; biased upwards",
    ),
)


def calibration(runs: Sequence[Result], humans: Float[Tensor, "image class"] | None = None) -> Section:
    """Build the section on calibration.

    Args:
        runs: all results.
        humans: the distribution of human labels for each test image, or None.
    """
    panels = [
        Panel(f"reliability-{name}", _in_words(name, problem), _draw_reliability(name, problem))
        for run in runs
        for name, problem in run.problems
    ]
    caption = (
        "A bar shows the accuracy of the examples in a bin of confidence. The hatched part is the gap to their "
        "mean confidence: yellow where the run is overconfident, light blue where it is underconfident. The "
        "histogram below shows the number of examples in each bin."
    )
    blocks: list[Block] = [Figure("Reliability", panels, caption), _errors(runs), *_posthoc(runs)]
    if humans is not None:
        blocks.append(_against_humans(runs, humans))
    return Section("calibration", "Calibration", [], blocks)


def _draw_reliability(name: str, problem: Predictions) -> Callable[[bool], "Drawing"]:
    return lambda with_legend: reliability_drawing(name, problem.log_probs.exp(), problem.labels, with_legend)


def _in_words(name: str, problem: Predictions) -> str:
    found = reliability(problem.log_probs.exp(), problem.labels)
    confidence = float((found.confidence.nan_to_num() * found.count).sum() / found.count.sum())
    right = float((found.accuracy.nan_to_num() * found.count).sum() / found.count.sum())
    side = "overconfident" if confidence > right else "underconfident"
    return (
        f"Reliability diagram of {name}: mean confidence {confidence:.1%}, accuracy {right:.1%}, {side} on "
        f"average; ECE {found.ece:.4f}"
    )


def _errors(runs: Sequence[Result]) -> Table:
    rows = []
    for run in runs:
        found = score(run.test)
        interval = mean_over_labels(
            ece_interval(one.log_probs.exp(), one.labels, examples=one.examples) for _, one in run.problems
        )
        squared = estimate(score_terms(run.test)[SQUARED.key].tolist())
        values = {
            "ece": found.ece,
            "ece_low": interval.low,
            "ece_high": interval.high,
            "adaptive_ece": found.adaptive_ece,
            "classwise_ece": found.classwise_ece,
            "mce": found.mce,
            "ace": found.average_calibration_error,
        }
        cells = {key: Cell(value) for key, value in values.items()}
        rows.append({"run": Cell(run.name), **cells, SQUARED.key: Cell(squared.mean, squared.error)})
    return Table("calibration", "Calibration errors", (RUN, *_ERRORS), rows, _BIAS)


def _posthoc(runs: Sequence[Result]) -> list[Table]:
    """Make a table for each score, before and after calibration by each method, fitted on validation predictions."""
    scores = [column for column in (*SCORES, ECE) if column.key != "brier"]
    rows: dict[str, list[dict[str, Cell]]] = {column.key: [] for column in scores}
    reasons: dict[str, None] = {}
    checked = [(run, run.validation) for run in runs if run.validation is not None]
    if not checked:
        return []
    for run, validation in checked:
        found = {"none": score(run.test)}
        for method in get_args(CalibrationMethod):
            try:
                found[method] = score(calibrate(method, validation, run.test))
            except InputError as error:  # too few validation images for this method
                reasons[f"{run.name}, {method}: {error}."] = None
        for column in scores:
            values = {method: Cell(getattr(of_method, column.key)) for method, of_method in found.items()}
            rows[column.key].append({"run": Cell(run.name), **values})
    tables = []
    for column in scores:
        columns = [
            Column(method, "before" if method == "none" else method, column.form, column.factor, column.better)
            for method in ("none", *get_args(CalibrationMethod))
        ]
        # Runs that selected members have fewer validation predictions, without the examples used for the selection.
        counts = dict.fromkeys(f"{len(validation.labels):,}" for _, validation in checked)
        note = (
            f"Calibration maps are fitted to {' or '.join(counts)} validation examples, on the average over "
            "draws and members, and evaluated on the test examples. A map fitted to few examples can make "
            "calibration worse."
        )
        note = " ".join([note, *reasons])
        name = column.title.partition(" [")[0]
        title = f"{name[0].upper()}{name[1:]} before and after post-hoc calibration"
        tables.append(Table(f"posthoc-{column.key}", title, (RUN, *columns), rows[column.key], note))
    return tables


def _against_humans(runs: Sequence[Result], humans: Tensor) -> Table:
    rows = []
    for run in runs:
        found = human_scores(run.test.log_probs, humans)
        values = {
            "cross_entropy": found.cross_entropy,
            "kl": found.kl,
            "total_variation": found.total_variation,
            "human_ece": found.ece,
        }
        rows.append({"run": Cell(run.name), **{key: Cell(value) for key, value in values.items()}})
    note = "People disagree about some images. Predictions are compared with the distribution of many people's labels."
    return Table("human", "Comparison with human label distributions", (RUN, *_HUMAN), rows, note)
