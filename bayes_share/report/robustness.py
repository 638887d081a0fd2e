"""Robustness: accuracy, NLL and ECE of corrupted test images against how strongly they are corrupted."""

from collections.abc import Mapping, Sequence
from functools import cache

import torch

from bayes_share.data.corruptions import SEVERITIES
from bayes_share.evaluation.predictions import read_predictions
from bayes_share.evaluation.repeats import Estimate, estimate
from bayes_share.evaluation.scores import Scores
from bayes_share.report.document import Cell, Column, Figure, Panel, Section, Table
from bayes_share.report.drawing import Line, line_drawing
from bayes_share.report.results import RunResults
from bayes_share.shift import corruption_scores

_SHOWN_SEVERITIES = (0, *SEVERITIES)
_SHOWN = {"accuracy": ("accuracy", "accuracy [%]", 100), "nll": ("NLL", "NLL [nat]", 1), "ece": ("ECE", "ECE", 1)}


def robustness(runs: Sequence[RunResults]) -> Section | None:
    """Curves against severity, and tables by severity and by type; None where no run was tried on corrupted images."""
    tried = [run for run in runs if _types(run)]
    if not tried:
        return None
    types = sorted({kind for run in tried for kind in _types(run)})
    sizes = sorted({str(info) for run in tried for info in run.folder.sets("corruptions").values()})
    lead = [
        f"Test images ({' or '.join(sizes)}), corrupted in {len(types)} ways, each in 5 severities; shown is the "
        "mean over the ways. Severity 0 is the same images as they are."
    ]
    tables = [_by_severity(tried), _by_type(tried, types)]
    return Section("robustness", "Robustness to corruption", lead, [_curves(runs), *tables])


def _types(run: RunResults) -> list[str]:
    """What the run was tried on in every severity."""
    return [kind for kind, severities in run.folder.corruption_sets().items() if severities == list(SEVERITIES)]


@cache
def _scores(run: RunResults) -> Mapping[int, Mapping[str, Scores]]:
    """By severity and type; of severity 0 those of the same images as they are."""
    types = _types(run)
    return corruption_scores(run.folder, types) if types else {}


@cache
def mean_corrupted_accuracy(run: RunResults) -> Estimate | None:
    """Over all corruptions and severities, with the standard error over images; None where there are none."""
    names = [f"corruptions/{kind}-{severity}" for kind in _types(run) for severity in SEVERITIES]
    if not names:
        return None
    corrupted = [read_predictions(run.folder.predictions(name)) for name in names]
    right = [(one.logits[0, 0].argmax(-1) == one.labels).double() for one in corrupted]
    return estimate(torch.stack(right).mean(0).tolist())


def _at(run: RunResults, severity: int, key: str) -> float:
    return estimate(getattr(scores, key) for scores in _scores(run)[severity].values()).mean


def _curves(runs: Sequence[RunResults]) -> Figure:
    panels = []
    for key, (title, label, factor) in _SHOWN.items():
        lines = []
        for i, run in enumerate(runs):
            if _types(run):
                values = [_at(run, severity, key) for severity in _SHOWN_SEVERITIES]
                lines.append(Line(run.name, [*map(float, _SHOWN_SEVERITIES)], [factor * value for value in values], i))
        draw = line_drawing(title, "severity", label, lines, (0.0, 5.0), points=True)
        words = ", ".join(f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
        panels.append(Panel(f"corruption-{key}", f"{label} against severity: {words}", draw))
    return Figure("Against severity", panels, "The mean over all ways of corrupting.", [run.name for run in runs])


def _by_severity(runs: Sequence[RunResults]) -> Table:
    rows = []
    for run in runs:
        for key in _SHOWN:
            cells = {str(severity): Cell(_at(run, severity, key)) for severity in _SHOWN_SEVERITIES}
            rows.append({"run": Cell(run.name), "score": Cell(_SHOWN[key][0]), **cells})
    columns = [
        Column("run", "run"),
        Column("score", "score"),
        *(Column(str(s), f"severity {s}") for s in _SHOWN_SEVERITIES),
    ]
    return Table("corruptions", "By severity", columns, rows, "Accuracy as a share, from 0 to 1.")


def _by_type(runs: Sequence[RunResults], types: Sequence[str]) -> Table:
    rows = []
    for kind in types:
        row = {"corruption": Cell(kind.replace("_", " "))}
        for run in runs:
            found = [_scores(run)[severity][kind].accuracy for severity in SEVERITIES if kind in _types(run)]
            row[run.name] = Cell(estimate(found).mean if found else None)
        rows.append(row)
    columns = [Column(run.name, run.name, ".1f", 100, "higher") for run in runs]
    title = "Accuracy [%] by corruption, the mean over severities"
    return Table("corruption-types", title, (Column("corruption", "corruption"), *columns), rows)
