"""Runs that nothing happened to, one for each kind, made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from driver import ended_well, fit, left


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
