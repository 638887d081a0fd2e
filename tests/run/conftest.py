"""Runs that nothing happened to, one for each kind, made once; and studies whose processes begin at once."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from driver import context, ended_well, fit, left

from bayes_share.study import runner


@pytest.fixture(scope="session", autouse=True)
def _study_processes() -> Iterator[None]:
    """Those of studies are copies of one that has imported all: to spawn each takes as long as dozens of small runs.

    A study in a process of its own, as in `test_a_study_that_is_stopped_ends_with_the_same_numbers`, spawns them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "get_context", lambda method: context())
        yield


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the run of a kind; not to be written into."""

    @cache
    def make(kind: str) -> Path:
        out = tmp_path_factory.mktemp("untouched") / "run"
        ended_well(fit(kind, out))
        return out

    return make


@pytest.fixture(scope="session")
def expected(untouched: Callable[[str], Path]) -> Callable[[str], dict[str, Any]]:
    """What the run of a kind left."""
    return cache(lambda kind: left(untouched(kind)))
