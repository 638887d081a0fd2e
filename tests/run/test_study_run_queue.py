"""Runs that require other runs start after them, and fail with them."""

from pathlib import Path

import pytest

from bayes_share.errors import InputError
from bayes_share.inference import MAP
from bayes_share.runs.config import RunConfig
from bayes_share.runs.run_folder import RunFolder
from bayes_share.study.run_queue import RunQueue
from bayes_share.study.runner import run_all


def test_a_run_starts_when_all_runs_that_it_requires_are_finished() -> None:
    queue = RunQueue(["student", "a", "b", "alone"], {"student": ["a", "b"]})
    assert [queue.next(), queue.next(), queue.next(), queue.next()] == ["a", "b", "alone", None]
    assert (queue.ended("a", None), queue.next(), queue.num_waiting) == (1, None, 1)
    queue.ended("b", None)
    assert (queue.next(), queue.num_waiting) == ("student", 0)


def test_finished_runs_are_not_waited_for() -> None:
    queue = RunQueue(["a", "student"], {"student": ["a"]}, finished=["a"])
    assert (queue.num_waiting, queue.next(), queue.next()) == (1, "student", None)


def test_runs_fail_if_a_run_that_they_require_fails() -> None:
    queue = RunQueue(["a", "b", "c", "d"], {"b": ["a"], "c": ["a", "b"], "d": []})
    assert queue.next() == "a"
    assert queue.ended("a", "no disk") == 3
    assert queue.failed["a"] == "no disk"
    assert queue.failed["b"] == "it requires a, which failed: no disk"
    assert queue.failed["c"].startswith("it requires a")
    assert (queue.next(), queue.next(), queue.num_waiting) == ("d", None, 0)


def test_a_run_that_is_put_back_starts_after_the_others() -> None:
    queue = RunQueue(["a", "student", "b"], {"student": ["a"]})
    assert queue.next() == "a"
    queue.put_back("a")
    assert (queue.num_waiting, queue.next(), queue.next(), queue.next()) == (3, "b", "a", None)
    assert queue.ended("a", None) == 1
    assert queue.next() == "student"


def test_runs_that_can_never_start_are_refused() -> None:
    with pytest.raises(InputError, match="the run b requires x, which is not among the runs"):
        RunQueue(["a", "b"], {"b": ["x"]})
    with pytest.raises(InputError, match="the runs a, b wait for each other"):
        RunQueue(["a", "b", "c"], {"a": ["b"], "b": ["a"]})


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_runner_starts_runs_after_those_that_they_require(jobs: int, tmp_path: Path) -> None:
    configs = {
        "student": RunConfig(epochs=1),
        "other": RunConfig(epochs=1, seed=1),
        "teacher": RunConfig(epochs=3),
        "diverges": RunConfig(MAP(learning_rate=1e12), epochs=1),
        "lost": RunConfig(epochs=1, seed=2),
    }
    needs = {"student": ["teacher"], "lost": ["diverges"]}
    failed = run_all(configs, tmp_path, jobs=jobs, progress=False, needs=needs)
    assert set(failed) == {"diverges", "lost"}
    assert failed["lost"] == f"it requires diverges, which failed: {failed['diverges']}"
    assert not (tmp_path / "lost").exists()
    student, teacher = (RunFolder(tmp_path / name) for name in ("student", "teacher"))
    assert student.config.stat().st_mtime_ns > teacher.summary.stat().st_mtime_ns
    (tmp_path / "student" / "summary.json").unlink()
    assert set(run_all(configs, tmp_path, jobs=jobs, progress=False, needs=needs)) == {"diverges", "lost"}
    assert student.summary.is_file()
