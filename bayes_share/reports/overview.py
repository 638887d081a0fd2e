"""The overview section: a table of the main scores of all runs, and sentences that compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from bayes_share.evaluation.bootstrap_intervals import score_terms
from bayes_share.evaluation.calibration import ece
from bayes_share.evaluation.seed_statistics import estimate
from bayes_share.reports.best_marks import marked
from bayes_share.reports.chance import at_chance
from bayes_share.reports.document import Cell, Column, Section, Table
from bayes_share.reports.out_of_distribution import mean_aurocs
from bayes_share.reports.ranking import ranking
from bayes_share.reports.results import Result
from bayes_share.reports.robustness import mean_corrupted_accuracies

RUN = Column("run", "run")
_METHOD = Column("method", "method")
SQUARED = Column(
    "squared_calibration_error",
    "squared CE",
    ".5f",
    1,
    "lower",
    "debiased squared calibration error, the calibration part of the Brier score; may be below 0 by chance",
)
ECE = Column(
    "ece", "ECE", about="expected calibration error over 15 bins of equal width; biased upwards, therefore not ranked"
)
SCORES = (
    Column("accuracy", "accuracy [%]", ".2f", 100, "higher", "share of examples whose most probable class is right"),
    Column("nll", "NLL [nat]", ".4f", 1, "lower", "mean negative log-likelihood of the right classes"),
    Column("brier", "Brier", ".4f", 1, "lower", "squared distance between the probabilities and the one-hot label"),
    SQUARED,
)
"""The scores that runs are ranked by: unbiased means over examples."""
_AUROC = Column(
    "auroc",
    "OOD AUROC",
    ".3f",
    1,
    "higher",
    "by predictive entropy, averaged over the out-of-distribution sets that all runs have",
)
_CORRUPTED = Column(
    "corrupted", "corrupted [%]", ".2f", 100, "higher", "accuracy averaged over corruptions; see Robustness"
)
_COSTS = (
    Column("networks", "predictions", ",", about="number of averaged predictions: draws times members"),
    Column(
        "parameters",
        "parameters",
        ",",
        about="trained parameters of all networks of the run, including the scales of SVI guides; other state "
        "of an algorithm is not counted",
    ),
    Column("seconds", "training [s]", ",.1f", 1, "lower", "training time"),
)


def overview(runs: Sequence[Result]) -> Section:
    """Build the table, and a sentence for each score that runs are ranked by."""
    terms = [score_terms(run.test) for run in runs]
    rows = [
        {"run": Cell(run.name), **_method(run), **_scores(of_run), ECE.key: _ece(run), **_costs(run)}
        for run, of_run in zip(runs, terms, strict=True)
    ]
    lead = []
    for column in SCORES if len(runs) > 1 else ():
        scores: list[Any] = [row[column.key].value for row in rows]
        found = ranking(column, scores, [of_run[column.key] for of_run in terms])
        if found.is_clear:
            rows[found.best][column.key] = replace(rows[found.best][column.key], is_best=True)
        if column.key != "brier":  # usually the same ranking as the NLL
            lead.append(found.sentence(column, [run.name for run in runs], scores[found.best]))
    lead += [said for run, of_run in zip(runs, terms, strict=True) if (said := at_chance(run, of_run["accuracy"]))]
    columns = [RUN, *_known(rows, [_METHOD]), *SCORES, ECE]
    for column, values in ((_AUROC, mean_aurocs(runs)), (_CORRUPTED, mean_corrupted_accuracies(runs))):
        if any(value is not None for value in values):
            columns.append(column)
            for row, cell in zip(rows, marked(column, values), strict=True):
                row[column.key] = cell
    comparison = (
        " Bold: significantly better than every other run; of two equally good runs, one would be bold in 5 % "
        "of cases. Scores are compared by paired differences over examples, OOD AUROC and corrupted accuracy by "
        "the standard errors of both runs. The ECE is not ranked, since it is larger for the less accurate of "
        "two calibrated runs."
    )
    note = (
        f"± is one standard error over the test examples.{comparison * (len(runs) > 1)} The squared CE is the "
        "debiased squared calibration error, which may be below 0 by chance. The variation between random seeds "
        "is not included."
    )
    return Section(
        "overview", "Overview", lead, [Table("overview", "Scores", [*columns, *_known(rows, _COSTS)], rows, note)]
    )


def _method(run: Result) -> dict[str, Cell]:
    return {} if run.method is None else {_METHOD.key: Cell(run.method)}


def _scores(terms: Mapping[str, Tensor]) -> dict[str, Cell]:
    """Make cells of means with standard errors; a single example has no error."""
    found = {column.key: estimate(terms[column.key].tolist()) for column in SCORES}
    return {key: Cell(value.mean, value.error) for key, value in found.items()}


def _ece(run: Result) -> Cell:
    return Cell(estimate(ece(problem.log_probs.exp(), problem.labels) for _, problem in run.problems).mean)


def _costs(run: Result) -> dict[str, Cell]:
    draws, members = run.test.logits.shape[:2]
    known = {} if run.run is None else run.run.summary
    costs = {"networks": draws * members, "parameters": known.get("parameters"), "seconds": known.get("seconds")}
    return {key: Cell(value) for key, value in costs.items() if value is not None}


def _known(rows: Sequence[Mapping[str, Cell]], columns: Sequence[Column]) -> list[Column]:
    """Return the columns that have a value in some row."""
    return [column for column in columns if any(column.key in row for row in rows)]
