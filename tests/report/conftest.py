"""The runs of the report tests, made once per session."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from runs_of_report import make_runs

from bayes_share.reports.build import build_report
from bayes_share.reports.document import Report
from bayes_share.reports.gather import read_runs
from bayes_share.reports.results import Result


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """Run folders; tests must not write to them."""
    return make_runs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def runs(paths: Sequence[Path]) -> list[Result]:
    """The results read from the run folders."""
    return read_runs(paths)


@pytest.fixture(scope="session")
def report(runs: list[Result]) -> Report:
    """The report on the runs."""
    return build_report(runs, title="Three <b>runs</b> & more")
