"""The runs, made once."""

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
    """Folders of runs; not to be written into."""
    return make_runs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def runs(paths: Sequence[Path]) -> list[Result]:
    """The runs as they are read."""
    return read_runs(paths)


@pytest.fixture(scope="session")
def report(runs: list[Result]) -> Report:
    """The report on them."""
    return build_report(runs, title="Three <b>runs</b> & more")
