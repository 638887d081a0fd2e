"""Calibration: reliability diagrams side by side, calibration errors, post-hoc calibration, and human labels."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.evaluation.calibration import adaptive_ece, classwise_ece, reliability
from bayes_share.evaluation.human import human_scores
from bayes_share.evaluation.pictures import reliability_drawing
from bayes_share.evaluation.posthoc import CalibrationMethod, calibrate
from bayes_share.evaluation.scores import accuracy, nll
from bayes_share.report.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.report.overview import RUN, SCORES
from bayes_share.report.results import RunResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_ERRORS = (
    Column("ece", "ECE", better="lower", about="mean gap between confidence and accuracy, 15 bins of equal width"),
    Column("adaptive_ece", "adaptive ECE", better="lower", about="the same in 15 bins of as many images each"),
    Column("classwise_ece", "class-wise ECE", better="lower", about="the mean over classes of their probability's ECE"),
    Column("mce", "MCE", better="lower", about="the largest gap of a bin"),
    Column("ace", "average CE", better="lower", about="the mean gap of the bins, each counting the same"),
)
_HUMAN = (
    Column("cross_entropy", "cross-entropy [nat]", better="lower", about="to the distribution of the human labels"),
    Column("kl", "KL [nat]", better="lower", about="from the human distribution to the predicted one"),
    Column("total_variation", "total variation", better="lower", about="half the sum of absolute differences"),
    Column(
        "human_ece", "ECE against humans", better="lower", about="right: the share of people who say the same class"
    ),
)


def calibration(runs: Sequence[RunResults], humans: Float[Tensor, "image class"] | None = None) -> Section:
    """What is known of the runs' calibration.

    Args:
        runs: all of them.
        humans: the distribution of human labels for each test image, where it is known.
    """
    panels = [
        Panel(f"reliability-{run.name}", _in_words(run), _draw_reliability(run.name, run.probs, run.test.labels))
        for run in runs
    ]
    caption = (
        "A bar is the accuracy of the images whose confidence falls into its bin. The hatched part is how far that is "
        "from their mean confidence: yellow above it, where the run is overconfident, light blue where it is "
        "underconfident. Below, how the images spread over the bins."
    )
    blocks: list[Block] = [Figure("Reliability", panels, caption), _errors(runs), *_posthoc(runs)]
    if humans is not None:
        blocks.append(_against_humans(runs, humans))
    return Section("calibration", "Calibration", [], blocks)


def _draw_reliability(name: str, probs: Tensor, labels: Tensor) -> Callable[[bool], "Drawing"]:
    return lambda with_legend: reliability_drawing(name, probs, labels, with_legend)


def _in_words(run: RunResults) -> str:
    found = reliability(run.probs, run.test.labels)
    confidence = float((found.confidence.nan_to_num() * found.count).sum() / found.count.sum())
    right = float((found.accuracy.nan_to_num() * found.count).sum() / found.count.sum())
    side = "overconfident" if confidence > right else "underconfident"
    return (
        f"Reliability diagram of {run.name}: mean confidence {confidence:.1%}, accuracy {right:.1%}, so {side} on "
        f"average; ECE {found.ece:.4f}"
    )


def _errors(runs: Sequence[RunResults]) -> Table:
    rows = []
    for run in runs:
        probs, labels = run.probs, run.test.labels
        found = reliability(probs, labels)
        values = {
            "ece": found.ece,
            "adaptive_ece": adaptive_ece(probs, labels),
            "classwise_ece": classwise_ece(probs, labels),
            "mce": found.mce,
            "ace": found.average_calibration_error,
        }
        rows.append({"run": Cell(run.name), **{key: Cell(value) for key, value in values.items()}})
    return Table("calibration", "Calibration errors", (RUN, *_ERRORS), rows)


def _posthoc(runs: Sequence[RunResults]) -> list[Table]:
    """A table for each score: before, and after each method, fitted on the validation predictions."""
    scores = [column for column in SCORES if column.key in ("nll", "ece", "accuracy")]
    rows: dict[str, list[dict[str, Cell]]] = {column.key: [] for column in scores}
    reasons: dict[str, None] = {}
    for run in runs:
        found = {"none": (run.test.log_probs, run.test.labels)}
        for method in get_args(CalibrationMethod):
            try:
                calibrated = calibrate(method, run.validation, run.test)
            except InputError as error:  # too few validation images for this method
                reasons[f"{run.name}, {method}: {error}."] = None
                continue
            found[method] = (calibrated.log_probs, calibrated.labels)
        for column in scores:
            values = {method: _score(column.key, *what) for method, what in found.items()}
            rows[column.key].append({"run": Cell(run.name), **{key: Cell(value) for key, value in values.items()}})
    tables = []
    for column in scores:
        columns = [
            Column(method, "before" if method == "none" else method, column.form, column.factor, column.better)
            for method in ("none", *get_args(CalibrationMethod))
        ]
        note = (
            f"Fitted on {len(runs[0].validation.labels):,} validation images, to the average over draws and members; "
            "reported on the test images. Fitted to few images, a map can be worse than none."
        )
        note = " ".join([note, *reasons])
        name = column.title.partition(" [")[0]
        title = f"{name[0].upper()}{name[1:]} before and after post-hoc calibration"
        tables.append(Table(f"posthoc-{column.key}", title, (RUN, *columns), rows[column.key], note))
    return tables


def _score(key: str, logs: Tensor, labels: Tensor) -> float:
    if key == "nll":
        return nll(logs, labels)
    return accuracy(logs.exp(), labels) if key == "accuracy" else reliability(logs.exp(), labels).ece


def _against_humans(runs: Sequence[RunResults], humans: Tensor) -> Table:
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
    note = "A person is unsure of some images too: the distribution of many people's labels is what is compared with."
    return Table("human", "Against human label distributions", (RUN, *_HUMAN), rows, note)
