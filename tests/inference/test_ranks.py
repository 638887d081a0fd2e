"""Trainings in 2 and 3 processes: without noise they equal one process, and all ranks have the same state."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import ranks_worker
import torch
from regression import PROBLEMS, misses, misses_of_chain
from states import differences, leaves
from test_sghmc import stationary
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.of_ranks import part_of
from bayes_share.inference.step.ranks import Ranks

COUNTS = (2, pytest.param(3, marks=pytest.mark.slow))


@pytest.fixture(scope="module", params=COUNTS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """Return the number of processes, and the folder with the results of each."""
    folder = tmp_path_factory.mktemp("ranks")
    run_processes(str(ranks_worker.__file__), request.param, folder)
    return request.param, folder


def run_processes(script: str, count: int, folder: Path) -> None:
    """Run a script in several processes until they end."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, script, str(rank), str(count), str(folder)], env=environment)
        for rank in range(count)
    ]
    try:
        assert [process.wait(timeout=900) for process in processes] == [0] * count
    finally:
        for process in processes:
            process.kill()


@cache
def alone(name: str) -> dict[str, Any]:
    """Return the result of one process."""
    return ranks_worker.run(name)


def of_ranks(finished: tuple[int, Path], name: str) -> list[Any]:
    number = [*ranks_worker.EXACT, *ranks_worker.NOISY].index(name)
    count, folder = finished
    return [torch.load(folder / f"{number}-{rank}.pt", weights_only=True) for rank in range(count)]


@pytest.mark.parametrize("name", ranks_worker.EXACT)
def test_several_processes_give_the_values_of_one(finished: tuple[int, Path], name: str) -> None:
    if finished[0] == 3 and name not in ranks_worker.FEW:
        pytest.skip("run on 2 processes")
    first, *others = of_ranks(finished, name)
    expected = alone(name)
    here, there = dict(leaves(first["state"])), dict(leaves(expected["state"]))
    assert here.keys() == there.keys()
    for path, value in there.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            error = 1e-6 if name in ("padded", "bootstrap") else 1e-9  # weights are float32
            torch.testing.assert_close(here[path], value, rtol=error, atol=error, msg=lambda text: f"{path}: {text}")  # noqa: B023
    assert first["history"] == pytest.approx(expected["history"], rel=1e-7)
    for other in others:
        assert differences(other["state"], first["state"]) == []


@pytest.mark.parametrize("name", ranks_worker.NOISY)
def test_ranks_with_their_own_noise_or_norm_statistics_have_equal_states(finished: tuple[int, Path], name: str) -> None:
    if finished[0] != 2:
        pytest.skip("run on 2 processes")
    first, second = of_ranks(finished, name)
    assert differences(second["state"], first["state"]) == []
    assert second["history"] == first["history"]
    assert first["history"][-1] < first["history"][0] or name == "sghmc"
    assert first["history"][-1] == pytest.approx(alone(name)["history"][-1], rel=0.5)


def test_distributed_chains_equal_those_of_one_process(finished: tuple[int, Path]) -> None:
    count, folder = finished
    expected = ranks_worker.chains()
    assert len(expected["chains"]) == 3
    for rank in range(count):
        found = torch.load(folder / f"chains-{rank}.pt", weights_only=True)
        assert differences(found, expected) == []


def test_distributed_networks_resume_within_an_epoch(finished: tuple[int, Path]) -> None:
    count, folder = finished
    expected = of_ranks(finished, "deep ensemble of ivon")[0]["state"]
    for rank in range(count):
        found = torch.load(folder / f"within-{rank}.pt", weights_only=True)
        assert differences(found, expected) == []


def test_only_the_first_process_saves_and_reports(finished: tuple[int, Path]) -> None:
    count, folder = finished
    told = [torch.load(folder / f"resumed-{rank}.pt", weights_only=True) for rank in range(count)]
    assert told == [2, *[0] * (count - 1)]  # once per epoch, and never for a training that is already finished
    assert any((folder / "stopped").iterdir())


def test_a_batch_that_does_not_divide_among_processes_is_refused(finished: tuple[int, Path]) -> None:
    count, folder = finished
    said = {(folder / f"refused-{rank}").read_text() for rank in range(count)}
    words = "InputError: a batch of 50 examples cannot be divided among 3 processes: use a divisible batch size"
    assert said == ({words} if count == 3 else {""})


@pytest.mark.parametrize("parts", [1, 2])
def test_the_parts_of_the_ranks_make_up_the_batch(parts: int) -> None:
    batch = Batch({"x": torch.arange(12), "same": torch.ones(3)}, torch.arange(12), torch.rand(12))
    found = [part_of(batch, Ranks(rank, 3), parts) for rank in range(3)]
    together = torch.stack([part.targets.unflatten(0, (parts, -1)) for part in found], 1).flatten()
    assert torch.equal(together, batch.targets)
    assert all(torch.equal(part.inputs["x"], part.targets) and len(part.inputs["same"]) == 3 for part in found)
    # Weighted sums divided by the sums of counts, averaged over processes, are the weighted mean.
    values = torch.randn(12)
    assert batch.weights is not None
    expected = (batch.weights * values).sum() / batch.weights.sum()
    means = [
        (part.weights * values[part.targets]).sum() / part.counted.sum()  # type: ignore[operator, union-attr]
        for part in found
    ]
    torch.testing.assert_close(torch.stack(means).mean(), expected)


def test_a_single_process_is_rank_0() -> None:
    assert Ranks.here() == Ranks(0, 1)
    assert Ranks.here().is_first
    Ranks.here().wait()


def test_a_batch_that_does_not_divide_among_members_and_processes_is_refused() -> None:
    with pytest.raises(InputError, match="among 2 members and 3 processes"):
        part_of(Batch(torch.zeros(8), torch.zeros(8)), Ranks(0, 3), parts=2)


@pytest.mark.slow
def test_two_processes_find_the_known_posterior(tmp_path: Path) -> None:
    run_processes(str(Path(__file__).with_name("ranks_posterior.py")), 2, tmp_path)
    problem = PROBLEMS[0]
    for name in ("svi", "ivon", "sghmc"):
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(2))
        assert torch.equal(first, second)
        if name == "sghmc":
            assert misses_of_chain(first, stationary(problem)) == []
        else:
            assert misses(first, problem.mean_field()) == []
            assert misses(first.flip(2), problem.mean_field())  # another posterior is detected


_LIFE_OF_A_GROUP = """
import os
import torch
from torch import distributed as dist
import bayes_share.inference

def threads():
    return [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]

dist.init_process_group("gloo", init_method="file://" + os.environ["MEETING"], rank=0, world_size=1)
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.SGD([weight], lr=0.1, fused=True)
weight.sum().backward()
optimizer.step()
assert "pt_gloo_runloop" in threads()
dist.destroy_process_group()
print("pt_gloo_runloop" in threads())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed by /proc")
def test_no_thread_of_a_process_group_is_left_to_crash_at_exit(tmp_path: Path) -> None:
    environment = {**os.environ, "MEETING": str(tmp_path / "meeting")}
    ended = subprocess.run(
        [sys.executable, "-c", _LIFE_OF_A_GROUP], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr
