"""The section on robustness: accuracy, NLL and ECE on corrupted test images, by severity and type."""

from collections.abc import Mapping, Sequence

import torch

from bayes_share.analysis.dataset_shift import averaged, corruption_scores
from bayes_share.data.corruptions import SEVERITIES
from bayes_share.evaluation.bootstrap_intervals import score_terms
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.scores import Scores
from bayes_share.evaluation.seed_statistics import Estimate, estimate
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.drawing import Line, line_drawing
from bayes_share.reports.results import Result, once, sets_in_common

_SHOWN_SEVERITIES = (0, *SEVERITIES)
_SHOWN = {"accuracy": ("accuracy", "accuracy [%]", 100), "nll": ("NLL", "NLL [nat]", 1), "ece": ("ECE", "ECE", 1)}


def robustness(runs: Sequence[Result]) -> Section | None:
    """Draw curves against severity, and tables by severity and type. Return None if runs have no types in common."""
    types = _types(runs)
    if not types:
        return None
    tried = [run for run in runs if run.sets("corruptions")]
    size = tried[0].sets("corruptions")[f"{types[0]}-1"]
    kinds = f"{len(types)} type{'s' * (len(types) > 1)} of corruption"
    means = averaged(types)
    over = "them" if means == types else f"the {len(means)} types of the benchmark CIFAR-10-C"
    averages = f"; scores are averaged over {over}" if len(types) > 1 else ""
    lead = [
        f"{kinds}, applied to {size} of the test set at 5 severities{averages}. Severity 0 is "
        "the same images without corruption. The ECE is biased upwards, more so with fewer images and lower accuracy."
    ]
    blocks: list[Block] = [_curves(runs, means), _by_severity(tried, means), _by_type(tried, types)]
    return Section("robustness", "Robustness to corruption", lead, blocks)


def _types(runs: Sequence[Result]) -> tuple[str, ...]:
    """Return the corruption types that all runs with corrupted images have in common, at every severity."""
    names = sets_in_common(runs, "corruptions")
    kinds = sorted({name.rpartition("-")[0] for name in names})
    return tuple(kind for kind in kinds if all(f"{kind}-{severity}" in names for severity in SEVERITIES))


@once
def _scores(run: Result, types: tuple[str, ...]) -> Mapping[int, Mapping[str, Scores]]:
    """Compute the scores by severity and type. Severity 0 is the same images without corruption."""
    assert run.run is not None  # only runs have sets
    return corruption_scores(run.run.folder, types)


def mean_corrupted_accuracies(runs: Sequence[Result]) -> list[Estimate | None]:
    """Average accuracies over types and severities, with the error over images; None for a run without predictions."""
    types = averaged(_types(runs))
    return [_mean_accuracy(run, types) if types and run.sets("corruptions") else None for run in runs]


def _mean_accuracy(run: Result, types: Sequence[str]) -> Estimate:
    names = [f"corruptions/{kind}-{severity}" for kind in types for severity in SEVERITIES]
    assert run.run is not None
    corrupted = [read_class_predictions(run.run.folder.predictions(name)) for name in names]
    right = [score_terms(one)["accuracy"] for one in corrupted]
    return estimate(torch.stack(right).mean(0).tolist())


def _at(run: Result, types: tuple[str, ...], severity: int, key: str) -> float:
    return estimate(getattr(scores, key) for scores in _scores(run, types)[severity].values()).mean


def _curves(runs: Sequence[Result], types: tuple[str, ...]) -> Figure:
    panels = []
    for key, (title, label, factor) in _SHOWN.items():
        lines = []
        for i, run in enumerate(runs):
            if run.sets("corruptions"):
                values = [factor * _at(run, types, severity, key) for severity in _SHOWN_SEVERITIES]
                lines.append(Line(run.name, [*map(float, _SHOWN_SEVERITIES)], values, i))
        draw = line_drawing(title, "severity", label, lines, (0.0, 5.0), points=True)
        words = ", ".join(f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
        panels.append(Panel(f"corruption-{key}", f"{label} against severity: {words}", draw))
    return Figure("Against severity", panels, "Averages over the types of corruption.", [run.name for run in runs])


def _by_severity(runs: Sequence[Result], types: tuple[str, ...]) -> Table:
    rows = []
    for run in runs:
        for key in _SHOWN:
            cells = {str(severity): Cell(_at(run, types, severity, key)) for severity in _SHOWN_SEVERITIES}
            rows.append({"run": Cell(run.name), "score": Cell(_SHOWN[key][0]), **cells})
    columns = [
        Column("run", "run"),
        Column("score", "score"),
        *(Column(str(s), f"severity {s}") for s in _SHOWN_SEVERITIES),
    ]
    return Table("corruptions", "By severity", columns, rows, "Accuracy as a share from 0 to 1.")


def _by_type(runs: Sequence[Result], types: tuple[str, ...]) -> Table:
    rows = []
    for kind in types:
        row = {"corruption": Cell(kind.replace("_", " "))}
        for run in runs:
            accuracies = [_scores(run, types)[severity][kind].accuracy for severity in SEVERITIES]
            row[f"accuracy/{run.name}"] = Cell(estimate(accuracies).mean)
        rows.append(row)
    columns = [Column(f"accuracy/{run.name}", run.name, ".1f", 100, "higher") for run in runs]
    title = "Accuracy [%] by corruption, averaged over severities"
    return Table("corruption-types", title, (Column("corruption", "corruption"), *columns), rows)
