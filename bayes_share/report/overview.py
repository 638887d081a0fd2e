"""The first screen: a table of all runs with the figures that matter, and what they say in a sentence or two."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from bayes_share.evaluation.intervals import Interval, paired_differences, score_intervals
from bayes_share.evaluation.repeats import Estimate
from bayes_share.report.best import badness, marked
from bayes_share.report.document import Cell, Column, Section, Table
from bayes_share.report.outside import mean_aurocs
from bayes_share.report.results import RunResults
from bayes_share.report.robustness import mean_corrupted_accuracies

RUN = Column("run", "run")
SCORES = (
    Column("accuracy", "accuracy [%]", ".2f", 100, "higher", "the share of images whose most probable class is right"),
    Column("nll", "NLL [nat]", ".4f", 1, "lower", "the mean negative log-likelihood of the right classes"),
    Column("brier", "Brier", ".4f", 1, "lower", "the squared distance of the probabilities to the label"),
    Column("ece", "ECE", ".4f", 1, "lower", "the expected calibration error in 15 bins of equal width"),
)
_AUROC = Column(
    "auroc",
    "OOD AUROC",
    ".3f",
    1,
    "higher",
    "by predictive entropy, the mean over the sets that all runs were tried on",
)
_CORRUPTED = Column(
    "corrupted", "corrupted [%]", ".2f", 100, "higher", "accuracy, the mean over corruptions; see Robustness"
)
_COSTS = (
    Column("networks", "predictions", ",", about="draws times members that are averaged"),
    Column(
        "parameters",
        "parameters",
        ",",
        about="learned by all networks of the run, spreads of SVI too; without what else an algorithm keeps",
    ),
    Column("seconds", "training [s]", ",.1f", 1, "lower", "the time that training took"),
)


def overview(runs: Sequence[RunResults]) -> Section:
    """The table, and a sentence for each score that ranks runs."""
    intervals = [score_intervals(run.test) for run in runs]
    rows = [
        {"run": Cell(run.name), "method": Cell(run.method), **_scores(found, len(run.test.labels)), **_costs(run)}
        for run, found in zip(runs, intervals, strict=True)
    ]

    @cache
    def differences(one: int, other: int) -> Mapping[str, Estimate]:
        return paired_differences(runs[one].test, runs[other].test)

    lead = []
    for column in SCORES if len(runs) > 1 else ():
        best, *others = sorted(range(len(runs)), key=lambda i: badness(column, rows[i][column.key].value))
        gaps = {other: differences(best, other)[column.key] for other in others}
        near = [other for other in others if not _is_clear(gaps[other])]
        if not near:
            rows[best][column.key] = replace(rows[best][column.key], is_best=True)
        if column.key != "brier":  # says what the NLL does
            rival = (near or others)[0]
            lead.append(_sentence(column, runs[best].name, rows[best], runs[rival].name, gaps[rival], not near))
    columns = [RUN, Column("method", "method"), *SCORES]
    for column, values in ((_AUROC, mean_aurocs(runs)), (_CORRUPTED, mean_corrupted_accuracies(runs))):
        if any(value is not None for value in values):
            columns.append(column)
            for row, cell in zip(rows, marked(column, values), strict=True):
                row[column.key] = cell
    note = (
        "± is one standard error over the test images, by the bootstrap. Bold: ahead of every other run by more than "
        "the standard error of the difference: of a score, on the same images; of OOD AUROC and corrupted accuracy, by "
        "the errors of the two together. So of two runs that are equally good, one is bold in about one case of three. "
        "None of this says how much another seed would change."
    )
    return Section("overview", "Overview", lead, [Table("overview", "All runs", [*columns, *_COSTS], rows, note)])


def _scores(found: Mapping[str, Interval], num_images: int) -> dict[str, Cell]:
    """A single image does not say how much another one would change."""
    return {
        column.key: Cell(found[column.key].value, found[column.key].error if num_images > 1 else None)
        for column in SCORES
    }


def _costs(run: RunResults) -> dict[str, Cell]:
    draws, members = run.test.logits.shape[:2]
    costs = {"networks": draws * members, "parameters": run.summary["parameters"], "seconds": run.summary["seconds"]}
    return {key: Cell(value) for key, value in costs.items()}


def _is_clear(gap: Estimate) -> bool:
    return gap.error is not None and abs(gap.mean) > gap.error


def _sentence(column: Column, best: str, row: Mapping[str, Cell], rival: str, gap: Estimate, is_clear: bool) -> str:
    unit = " points" if column.factor == 100 else ""
    name = column.title.partition(" [")[0]
    value = column.text(row[column.key].value) + (" %" if unit else "")
    error = "" if gap.error is None else f" ± {column.text(gap.error)}"
    size = f"{column.text(abs(gap.mean))}{error}{unit}"
    which = "highest" if column.better == "higher" else "lowest"
    if is_clear:
        return f"{best} has the {which} {name}, {value}, ahead of {rival} by {size}."
    return f"{best} has the {which} {name}, {value}, but not by more than a standard error: {rival} is {size} behind."
