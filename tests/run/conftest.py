"""Finished runs for comparison, one for each kind, and studies whose worker processes start fast."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from driver import context, ended_well, fit, run_contents

from bayes_share.study import runner


@pytest.fixture(scope="session", autouse=True)
def _study_processes() -> Iterator[None]:
    """Start the worker processes of studies as copies of a process with all imports, since spawning them takes seconds.

    A study in a process of its own, as in `test_an_interrupted_study_resumes_to_the_same_results`, still spawns them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "get_context", lambda method: context())
        yield


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that gives the folder of the finished run of a kind, which must not be written into."""

    @cache
    def make(kind: str) -> Path:
        out = tmp_path_factory.mktemp("untouched") / "run"
        ended_well(fit(kind, out))
        return out

    return make


@pytest.fixture(scope="session")
def expected(untouched: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """Return a function that gives the contents of the finished run of a kind."""
    return cache(lambda kind: run_contents(untouched(kind)))
