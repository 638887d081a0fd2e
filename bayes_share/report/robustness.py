"""Robustness: accuracy, NLL and ECE of corrupted test images against how strongly they are corrupted."""

from collections.abc import Mapping, Sequence
from functools import cache

from bayes_share.evaluation.predictions import Predictions, read_predictions
from bayes_share.evaluation.repeats import Estimate, estimate
from bayes_share.evaluation.scores import Scores, score
from bayes_share.report.document import Cell, Column, Figure, Panel, Section, Table
from bayes_share.report.drawing import Line, line_drawing
from bayes_share.report.results import RunResults

_SEVERITIES = (1, 2, 3, 4, 5)
_SHOWN = {"accuracy": ("accuracy", "accuracy [%]", 100), "nll": ("NLL", "NLL [nat]", 1), "ece": ("ECE", "ECE", 1)}


def robustness(runs: Sequence[RunResults]) -> Section | None:
    """Curves against severity, and tables by severity and by type; None where no run was tried on corrupted images."""
    tried = [run for run in runs if run.folder.corruption_sets()]
    if not tried:
        return None
    types = sorted({kind for run in tried for kind in run.folder.corruption_sets()})
    sizes = sorted({str(info) for run in tried for info in run.folder.sets("corruptions").values()})
    lead = [
        f"Test images ({' or '.join(sizes)}), corrupted in {len(types)} ways, each in 5 severities; shown is the "
        "mean over the ways. Severity 0 is all test images as they are."
    ]
    tables = [_by_severity(tried), _by_type(tried, types)]
    return Section("robustness", "Robustness to corruption", lead, [_curves(runs), *tables])


@cache
def _corrupted(run: RunResults) -> Mapping[tuple[str, int], Scores]:
    """The scores of every corruption and severity."""
    sets = run.folder.corruption_sets()
    return {
        (kind, severity): score(_read(run, kind, severity))
        for kind, severities in sets.items()
        for severity in severities
    }


def _read(run: RunResults, kind: str, severity: int) -> Predictions:
    return read_predictions(run.folder.predictions(f"corruptions/{kind}-{severity}"))


def mean_corrupted_accuracy(run: RunResults) -> Estimate | None:
    """Over all corruptions and severities; without an error, since these are not drawn at random."""
    found = [scores.accuracy for scores in _corrupted(run).values()]
    return Estimate(sum(found) / len(found), None, len(found)) if found else None


def _at(run: RunResults, severity: int, key: str) -> float | None:
    found = [getattr(scores, key) for (_, at), scores in _corrupted(run).items() if at == severity]
    return estimate(found).mean if found else None


def _curves(runs: Sequence[RunResults]) -> Figure:
    panels = []
    for key, (title, label, factor) in _SHOWN.items():
        lines = []
        for i, run in enumerate(runs):
            if run.folder.corruption_sets():
                values = {0: float(getattr(score(run.test), key))} | {
                    severity: value for severity in _SEVERITIES if (value := _at(run, severity, key)) is not None
                }
                lines.append(Line(run.name, list(values), [factor * value for value in values.values()], i))
        draw = line_drawing(title, "severity", label, lines, (0, 5), points=True)
        words = ", ".join(f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
        panels.append(Panel(f"corruption-{key}", f"{label} against severity: {words}", draw))
    return Figure("Against severity", panels, "The mean over all ways of corrupting.", [run.name for run in runs])


def _by_severity(runs: Sequence[RunResults]) -> Table:
    rows = []
    for run in runs:
        for key in _SHOWN:
            cells = {str(severity): Cell(_at(run, severity, key)) for severity in _SEVERITIES}
            clean = Cell(float(getattr(score(run.test), key)))
            rows.append({"run": Cell(run.name), "score": Cell(_SHOWN[key][0]), "0": clean, **cells})
    columns = [Column("run", "run"), Column("score", "score"), *(Column(str(s), f"severity {s}") for s in range(6))]
    return Table("corruptions", "By severity", columns, rows, "Accuracy as a share, from 0 to 1.")


def _by_type(runs: Sequence[RunResults], types: Sequence[str]) -> Table:
    rows = []
    for kind in types:
        row = {"corruption": Cell(kind.replace("_", " "))}
        for run in runs:
            found = [scores.accuracy for (at, _), scores in _corrupted(run).items() if at == kind]
            row[run.name] = Cell(estimate(found).mean if found else None)
        rows.append(row)
    columns = [Column(run.name, run.name, ".1f", 100, "higher") for run in runs]
    title = "Accuracy [%] by corruption, the mean over severities"
    return Table("corruption-types", title, (Column("corruption", "corruption"), *columns), rows)
