"""The section on training: validation scores after each epoch, against epochs and training time."""

from collections.abc import Sequence

from bayes_share.reports.document import Figure, Panel, Section
from bayes_share.reports.drawing import Line, line_drawing
from bayes_share.reports.run_record import RunRecord

_MEASURES = {"validation_accuracy": ("validation accuracy [%]", 100), "validation_nll": ("validation NLL [nat]", 1)}
_AGAINST = {"epoch": "epochs", "seconds": "training time [s]"}


def convergence(runs: Sequence[tuple[str, RunRecord]]) -> Section | None:
    """Draw the learning curves of the runs that have validation scores; return None if no run has any."""
    if not runs:
        return None
    panels = []
    for measure, (label, factor) in _MEASURES.items():
        scored = [  # numbers have no accuracy, and a run may be trained on its validation data
            (i, name, run) for i, (name, run) in enumerate(runs) if all(measure in line for line in run.history)
        ]
        if not scored:
            continue
        for against, x_label in _AGAINST.items():
            lines = [
                Line(name, _x(run, against), [factor * line[measure] for line in run.history], i)
                for i, name, run in scored
            ]
            is_log, whole = measure == "validation_nll", against == "epoch"
            draw = line_drawing("", x_label, label, lines, is_log=is_log, whole=whole)
            last = ", ".join(f"{line.name} {line.y[-1]:.3g}" for line in lines)
            panels.append(
                Panel(f"{measure.replace('_', '-')}-{against}", f"{label} against {x_label}; last: {last}", draw)
            )
    if not panels:
        return None
    caption = "Scores on the validation data after each epoch, with one posterior draw unless the run asks for more."
    return Section("convergence", "Training", [], [Figure("Convergence", panels, caption, [name for name, _ in runs])])


def _x(run: RunRecord, against: str) -> list[float]:
    return [line[against] + (against == "epoch") for line in run.history]
