"""Reports on predictions: an HTML page, and export as JSON, CSV and figures."""

from bayes_share.reports.build import build_report
from bayes_share.reports.gather import read_runs
from bayes_share.reports.html_page import html_page
from bayes_share.reports.results import Result

__all__ = ["Result", "build_report", "html_page", "read_runs"]
