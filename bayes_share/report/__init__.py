"""A report on runs: one page to open, and the same for machines and papers."""

from bayes_share.report.build import build_report
from bayes_share.report.page import page
from bayes_share.report.results import RunResults, read_runs

__all__ = ["RunResults", "build_report", "page", "read_runs"]
