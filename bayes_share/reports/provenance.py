"""Sentences that depend on whether predictions belong to a known run."""

from collections.abc import Sequence

from bayes_share.io.terminal import listed
from bayes_share.reports.number_results import NumberResult
from bayes_share.reports.results import Result

Results = Sequence[Result] | Sequence[NumberResult]


def counted(results: Results) -> str:
    """Count runs and other predictions in words, such as "2 runs and one set of predictions".

    Args:
        results: at least one result.
    """
    runs = sum(result.run is not None for result in results)
    others = len(results) - runs
    parts = []
    if runs:
        parts.append("one run" if runs == 1 else f"{runs} runs")
    if others:
        parts.append("one set of predictions" if others == 1 else f"{others} sets of predictions")
    return " and ".join(parts)


def held_out(results: Results) -> list[str]:
    """Return sentences on the use of validation examples before they serve for conformal prediction.

    Args:
        results: the results with conformal sets or intervals.
    """
    sentences = []
    if any(result.run is not None for result in results):
        sentences.append("Validation examples that a run used to select epochs or members are left out.")
    if given := [result.name for result in results if result.run is None]:
        sentences.append(
            f"The guarantee requires that the validation examples of {listed(given)} were not used for training or "
            "selection, which cannot be checked here."
        )
    return sentences
