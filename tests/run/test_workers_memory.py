"""A worker of a study returns the GPU memory of a run before it asks for the next one."""

import weakref
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from bayes_share.errors import RunError
from bayes_share.runs.config import RunConfig
from bayes_share.study import runner


class State:
    """A state that refers to itself, so that only the garbage collector frees it."""

    def __init__(self) -> None:
        self.own = self


class TwoRuns(Connection):
    """The worker's end of a pipe, through which two runs arrive."""

    def __init__(self, events: list[str]) -> None:
        self.events, self.left = events, 2

    def recv(self) -> tuple[RunConfig, Path]:
        if not self.left:
            raise EOFError
        self.left -= 1
        return RunConfig(), Path("run")

    def send(self, reason: str | None) -> None:
        self.events.append(f"told {reason}")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("uses_gpu", [False, True])
def test_memory_is_freed_after_each_run_and_before_its_end_is_told(
    uses_gpu: bool, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    states: list[weakref.ref[State]] = []

    def train(*_: Any) -> None:
        state = State()
        states.append(weakref.ref(state))
        if fails:
            raise RunError("the loss became NaN")

    monkeypatch.setattr(runner, "run_in_processes", train)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: uses_gpu)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append(f"freed, left {states[-1]()}"))
    runner._work(TwoRuns(events), 1, 1)
    of_a_run = [*(["freed, left None"] if uses_gpu else []), f"told {'the loss became NaN' if fails else None}"]
    assert events == of_a_run * 2
