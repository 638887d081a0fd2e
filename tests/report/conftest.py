"""The runs, made once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from runs_of_report import make_runs

from bayes_share.report.build import build_report
from bayes_share.report.document import Report
from bayes_share.report.results import RunResults, read_runs


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """Folders of runs; not to be written into."""
    return make_runs(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def runs(paths: Sequence[Path]) -> list[RunResults]:
    """The runs as they are read."""
    return read_runs(paths)


@pytest.fixture(scope="session")
def report(runs: list[RunResults]) -> Report:
    """The report on them."""
    return build_report(runs, title="Three <b>runs</b> & more")
