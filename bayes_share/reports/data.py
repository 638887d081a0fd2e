"""What runs understood of their data."""

from collections.abc import Sequence

from bayes_share.reports.document import Section
from bayes_share.reports.run_record import RunRecord


def data(runs: Sequence[tuple[str, RunRecord]]) -> Section | None:
    """Rows or images, target and inputs, as `fit` said them; None where no run noted them.

    Args:
        runs: of one data set, by the name to show.
    """
    lines = dict.fromkeys(line for _, run in runs for line in run.summary.get("data", []))
    return Section("data", "Data", [f"{line}." for line in lines], []) if lines else None
