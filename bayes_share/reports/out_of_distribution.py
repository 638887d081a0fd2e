"""The section on out-of-distribution detection by uncertainty scores."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from bayes_share.analysis.dataset_shift import read_ood
from bayes_share.evaluation.detection import detection, detection_intervals
from bayes_share.evaluation.ood import ood_scores
from bayes_share.evaluation.seed_statistics import Estimate, estimate
from bayes_share.evaluation.style import label, styled
from bayes_share.reports.best_marks import marked
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.drawing import TITLE_WIDTH, Line, add_legend, line_drawing, line_style
from bayes_share.reports.results import Result, once, sets_in_common

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SHOWN = "entropy"
"""The score shown in figures, which is available for every run."""

_LEAST = 0.05  # lower limit of the y axis of the histograms, in percent of the images
_WHICH = (Column("set", "set"), Column("run", "run"))
_DETECTION = (
    Column(
        "auroc",
        "AUROC",
        ".4f",
        better="higher",
        about="probability that an out-of-distribution image has a larger score than a test image",
    ),
    Column(
        "aupr_in",
        "AUPR in",
        ".4f",
        better="higher",
        about="area under the precision-recall curve, with the test images as positives",
    ),
    Column(
        "aupr_out",
        "AUPR out",
        ".4f",
        better="higher",
        about="area under the precision-recall curve, with the out-of-distribution images as positives",
    ),
    Column(
        "fpr95",
        "FPR at 95 % TPR [%]",
        ".1f",
        100,
        "lower",
        "share of the out-of-distribution images accepted when 95 % of the test images are accepted",
    ),
)
_LABELS = {
    "max-probability": "max. probability",
    "entropy": "entropy",
    "mutual-information": "mutual information",
    "energy": "energy",
    "max-logit": "max. logit",
    "k-nn": "k-NN",
}


def out_of_distribution(runs: Sequence[Result]) -> Section | None:
    """Build the section. Return None if no run has predictions for an out-of-distribution set."""
    sets = list(dict.fromkeys(name for run in runs for name in run.sets("ood")))
    if not sets:
        return None
    pairs = [(name, run) for name in sets for run in runs if name in run.sets("ood")]
    blocks: list[Block] = [_by_score(pairs), _by_entropy(pairs), _roc(sets, runs), _histograms(runs)]
    sizes = dict.fromkeys(f"{name} ({run.sets('ood')[name]})" for name, run in pairs)
    lead = [
        f"Out-of-distribution sets: {', '.join(sizes)}.",
        "A larger score means that an image is more likely to be out of distribution. Nothing was fitted to the "
        "out-of-distribution sets, and their images were normalised like the test images. An AUROC of 0.5 is "
        "chance; below 0.5, the order is reversed.",
    ]
    return Section("ood", "Out-of-distribution detection", lead, blocks)


@once
def _scores(run: Result, name: str | None) -> Mapping[str, Tensor]:
    """Compute all scores of the images of a set, or of the test images if `name` is None."""
    outputs = run.test if name is None or run.run is None else read_ood(run.run.folder, name, run.test)
    return ood_scores(outputs, None if run.run is None else run.run.train_features)


@once
def _intervals(run: Result, name: str) -> Mapping[str, Estimate]:
    found = detection_intervals(_scores(run, None)[SHOWN], _scores(run, name)[SHOWN])
    return {key: Estimate(value.value, value.error, 1) for key, value in found.items()}


def mean_aurocs(runs: Sequence[Result]) -> list[Estimate | None]:
    """Compute the AUROC of the entropy, averaged over the sets in common; None for a run without these sets.

    The AUROCs of different sets share the test images. Their errors are combined as if perfectly correlated, which is
    an upper bound.
    """
    names = sets_in_common(runs, "ood")
    means: list[Estimate | None] = []
    for run in runs:
        found = [_intervals(run, name)["auroc"] for name in names] if run.sets("ood") else []
        errors = [one.error or 0.0 for one in found]
        means.append(
            Estimate(estimate(one.mean for one in found).mean, sum(errors) / len(errors), 1) if found else None
        )
    return means


def _by_score(pairs: Sequence[tuple[str, Result]]) -> Table:
    rows = []
    for name, run in pairs:
        inner, outer = _scores(run, None), _scores(run, name)
        aurocs = {key: detection(inner[key], outer[key]).auroc for key in inner if key in outer}
        rows.append({"set": Cell(name), "run": Cell(run.name), **{key: Cell(value) for key, value in aurocs.items()}})
    keys = [key for key in _LABELS if any(key in row for row in rows)]
    columns = [Column(key, _LABELS[key], ".4f", better="higher") for key in keys]
    note = "Mutual information requires more than one draw or member; k-NN requires the features of training images."
    return Table("ood-scores", "AUROC by score", (*_WHICH, *columns), rows, note)


def _by_entropy(pairs: Sequence[tuple[str, Result]]) -> Table:
    rows: list[dict[str, Cell]] = []
    for name, group in groupby(pairs, key=lambda pair: pair[0]):
        runs = [run for _, run in group]
        found = [_intervals(run, name) for run in runs]
        columns = {column.key: marked(column, [one[column.key] for one in found]) for column in _DETECTION}
        for i, run in enumerate(runs):
            cells = {key: cells[i] for key, cells in columns.items()}
            rows.append({"set": Cell(name), "run": Cell(run.name), **cells})
    note = (
        "± is one standard error, from a bootstrap over the images of both sets. Bold: the run whose lead over "
        "every other run on a set exceeds 1.96 standard errors of the difference."
    )
    return Table("ood", "Detection by predictive entropy", (*_WHICH, *_DETECTION), rows, note)


def _roc(sets: Sequence[str], runs: Sequence[Result]) -> Figure:
    panels = []
    for name in sets:
        lines, words = [], []
        for i, run in enumerate(runs):
            if name in run.sets("ood"):
                inner, outer = _scores(run, None)[SHOWN], _scores(run, name)[SHOWN]
                false, true = roc_curve(inner, outer)
                lines.append(Line(run.name, false, true, i))
                words.append(f"{run.name} {detection(inner, outer).auroc:.3f}")
        draw = line_drawing(
            name,
            "share of the test images",
            "share of the out-of-distribution images",
            lines,
            (0.0, 1.0),
            (0.0, 1.0),
            diagonal=True,
        )
        panels.append(Panel(f"roc-{name}", f"ROC curves for {name}; areas: {', '.join(words)}", draw))
    caption = (
        "Shares of both sets with a predictive entropy above a threshold, for every threshold. The dashed line "
        "is chance."
    )
    return Figure("ROC curves", panels, caption, [run.name for run in runs])


def roc_curve(inner: Tensor, outer: Tensor) -> tuple[list[float], list[float]]:
    """Compute the shares of both sets above each threshold, at the corners of the ROC curve."""
    from sklearn.metrics import roc_curve as curve

    labels = np.concatenate([np.zeros(len(inner)), np.ones(len(outer))])
    false, true, _ = curve(labels, np.concatenate([inner.numpy(), outer.numpy()]))
    return false.tolist(), true.tolist()


def _histograms(runs: Sequence[Result]) -> Figure:
    panels = []
    for run in runs:
        if sets := run.sets("ood"):
            groups = [("test images", _scores(run, None)[SHOWN]), *((name, _scores(run, name)[SHOWN]) for name in sets)]
            words = ", ".join(f"{name} {values.median():.2f}" for name, values in groups)
            alternative = f"Predictive entropy of {run.name}; medians in nats: {words}"
            panels.append(Panel(f"ood-entropy-{run.name}", alternative, _draw_histogram(run.name, groups)))
    caption = "Share of the images by predictive entropy. Grey, filled: the test images."
    legend = list(dict.fromkeys(name for run in runs for name in run.sets("ood")))
    return Figure("Predictive entropy", panels, caption, legend)


def _draw_histogram(title: str, groups: Sequence[tuple[str, Tensor]]) -> Callable[[bool], "Drawing"]:
    def draw(with_legend: bool) -> "Drawing":
        from matplotlib.figure import Figure as MatplotlibFigure
        from matplotlib.ticker import FuncFormatter

        top = max(float(values.max()) for _, values in groups) or 1.0
        edges = np.linspace(0, top, 31)
        with styled():
            figure = MatplotlibFigure(figsize=(3.5, 2.9), layout="constrained")
            axes = figure.subplots()
            handles = []
            for i, (_, values) in enumerate(groups):
                share = 100 * np.histogram(values.numpy(), edges)[0] / len(values)
                style: dict[str, Any] = {"baseline": None, "linewidth": 1.4, **line_style(i - 1)}
                if i == 0:
                    style = {"baseline": _LEAST, "fill": True, "color": "#999999", "alpha": 0.45}
                handles.append(axes.stairs(share, edges, **style))
            axes.set_title(label(title, TITLE_WIDTH))
            axes.set_xlabel("predictive entropy [nat]")
            axes.set_ylabel("images [%], log scale")
            axes.set_xlim(0, top)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.set_ylim(_LEAST, 100)
            if with_legend:
                add_legend(figure, [name for name, _ in groups], handles)
        return figure

    return draw
