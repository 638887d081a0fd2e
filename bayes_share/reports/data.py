"""The section on the data of runs."""

from collections.abc import Sequence

from bayes_share.reports.document import Section
from bayes_share.reports.run_record import RunRecord


def data(runs: Sequence[tuple[str, RunRecord]]) -> Section | None:
    """Repeat the description of the data that `fit` printed; return None if no run recorded one.

    Args:
        runs: runs on the same data set, with display names.
    """
    lines = dict.fromkeys(line for _, run in runs for line in run.summary.get("data", []))
    return Section("data", "Data", [f"{line}." for line in lines], []) if lines else None
