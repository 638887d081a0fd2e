"""The section on selective prediction and uncertainty."""

from collections.abc import Sequence

from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.seed_statistics import estimate
from bayes_share.evaluation.selective import RiskCoverage, risk_coverage
from bayes_share.evaluation.uncertainty import uncertainty
from bayes_share.reports.document import Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.drawing import Line, line_drawing
from bayes_share.reports.overview import RUN
from bayes_share.reports.results import Result

_RISKS = (0.01, 0.05, 0.1)
_SELECTIVE = (
    Column("aurc", "AURC", better="lower", about="area under the risk-coverage curve"),
    Column("excess_aurc", "excess AURC", better="lower", about="excess over the area of the best possible order"),
    *(
        Column(
            f"coverage_{risk:g}",
            f"coverage [%] at {risk:.0%} risk",
            ".1f",
            100,
            "higher",
            "share of the examples that are answered",
        )
        for risk in _RISKS
    ),
)
_KINDS = {
    "entropy": "predictive entropy [nat]",
    "expected_entropy": "expected entropy [nat]",
    "mutual_information": "mutual information [nat]",
    "variation_ratio": "variation ratio",
}
_UNCERTAINTY = tuple(
    Column(f"{kind}_{part}", f"{title}, {part}") for kind, title in _KINDS.items() for part in ("right", "wrong")
)


def selective(runs: Sequence[Result]) -> Section:
    """Build risk-coverage curves, and tables of the uncertainty of right and wrong predictions.

    For several labels, the values in the tables are means over the labels.
    """
    curves = [[_curve(problem) for _, problem in run.problems] for run in runs]
    panels = [_panel(runs, [of_run[label] for of_run in curves], label) for label in range(len(curves[0]))]
    caption = (
        "Examples are answered in order of decreasing confidence: only the most confident on the left, "
        "all on the right."
    )
    figure = Figure("Risk and coverage", panels, caption, [run.name for run in runs])
    table = Table("selective", "Selective prediction", (RUN, *_SELECTIVE), [*map(_row, runs, curves)])
    note = (
        "Averages over correctly (right) and incorrectly (wrong) classified examples. Mutual information and the "
        "variation ratio require more than one draw or member."
    )
    uncertain = Table("uncertainty", "Uncertainty", (RUN, *_UNCERTAINTY), [*map(_uncertainty, runs)], note)
    return Section("selective", "Selective prediction and uncertainty", [], [figure, table, uncertain])


def _curve(problem: Predictions) -> RiskCoverage:
    confidence, predicted = problem.log_probs.exp().max(-1)
    return risk_coverage(confidence, predicted == problem.labels)


def _panel(runs: Sequence[Result], curves: Sequence[RiskCoverage], label: int) -> Panel:
    lines = [
        Line(run.name, curve.coverage.mul(100).tolist(), curve.risk.mul(100).tolist(), i)
        for i, (run, curve) in enumerate(zip(runs, curves, strict=True))
    ]
    several = len(runs[0].problems) > 1
    title = f"risk and coverage{f', label {label}' * several}"
    draw = line_drawing(title, "coverage [% of the examples]", "risk [% wrong]", lines, (0.0, 100.0), (0.0, None))
    words = "Risk-coverage curves; area under the curve: " + ", ".join(
        f"{run.name} {curve.aurc:.4f}" for run, curve in zip(runs, curves, strict=True)
    )
    return Panel(f"risk-coverage{f'-{label}' * several}", words, draw)


def _row(run: Result, curves: Sequence[RiskCoverage]) -> dict[str, Cell]:
    values = {
        "aurc": [curve.aurc for curve in curves],
        "excess_aurc": [curve.excess_aurc for curve in curves],
        **{f"coverage_{risk:g}": [curve.coverage_at_risk(risk) for curve in curves] for risk in _RISKS},
    }
    return {"run": Cell(run.name), **{key: Cell(estimate(each).mean) for key, each in values.items()}}


def _uncertainty(run: Result) -> dict[str, Cell]:
    several = run.test.logits.shape[:2].numel() > 1
    found: dict[str, list[float]] = {}
    for _, problem in run.problems:
        unsure, right = uncertainty(problem), problem.log_probs.argmax(-1) == problem.labels
        for kind in _KINDS:
            if several or "entropy" in kind:
                for part, chosen in (("right", right), ("wrong", ~right)):
                    if chosen.any():
                        found.setdefault(f"{kind}_{part}", []).append(getattr(unsure, kind)[chosen].mean().item())
    return {"run": Cell(run.name), **{key: Cell(estimate(each).mean) for key, each in found.items()}}
