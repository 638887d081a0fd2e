"""Captured steps of several processes: the numbers of ordinary ones, and where none are captured, all say so."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import captured_ranks_worker
import pytest
import torch
from algorithms import CASES, FORMS, Case, form_builder
from captured_ranks_worker import STEPS
from cuda_stand_in import Machine, install
from states import differences, leaves
from test_ranks import run_processes
from torch import Tensor
from torch import distributed as dist

from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.capture import Captured, Eager
from bayes_share.inference.step.graphs import Graphs
from bayes_share.inference.step.of_ranks import OfRanks
from bayes_share.inference.step.ranks import Ranks
from bayes_share.tensors.seeding import seeded

SAID = "steps are captured (replayed operators, which is slower on a CPU)"
ACTS = {"map": 2, "map with noise": 2, "ivon": 2, "svi": 2, "synced norms": 6}
"""What the host does in a step: the seed, and the message between gradient and update; for a norm, four more."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes came to."""
    folder = tmp_path_factory.mktemp("captured")
    run_processes(str(captured_ranks_worker.__file__), 2, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", captured_ranks_worker.CASES)
def test_captured_steps_have_the_numbers_of_ordinary_ones(found: list[dict[str, Any]], name: str) -> None:
    for process in found:
        captured, ordinary = process[f"{name}, replay"], process[f"{name}, off"]
        assert captured["lines"] == [SAID]
        assert ordinary["lines"] == []
        assert differences(captured["state"], ordinary["state"]) == []
        assert captured["losses"] == ordinary["losses"]
        assert name not in ACTS or captured["acts"] == [ACTS[name]]
    assert differences(found[0][f"{name}, replay"]["state"], found[1][f"{name}, replay"]["state"]) == []


@pytest.mark.parametrize("name", ["map", "synced norms", "default rate", "dealt out"])
def test_they_have_those_of_one_process(found: list[dict[str, Any]], name: str) -> None:
    expected = captured_ranks_worker.finished(captured_ranks_worker.training(name, "off"))
    here, there = dict(leaves(found[0][f"{name}, replay"]["state"])), dict(leaves(expected["state"]))
    assert here.keys() == there.keys()
    for path, value in there.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            torch.testing.assert_close(here[path], value, rtol=1e-9, atol=1e-9, msg=lambda text: f"{path}: {text}")  # noqa: B023
    assert found[0][f"{name}, replay"]["losses"] == pytest.approx(expected["losses"], rel=1e-7)


@pytest.mark.parametrize("name", ["off to replay", "replay to off"])
def test_a_training_goes_on_with_steps_taken_in_another_way(found: list[dict[str, Any]], name: str) -> None:
    for process in found:
        assert differences(process[name]["state"], process["ivon, off"]["state"]) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pyro", "steps are not captured: svi uses Pyro's bound"),
        ("host", "steps are not captured: a tensor is read as a number"),
        (
            "other numbers",
            "steps are no longer captured: a replay of the recorded step gave a different result",
        ),
    ],
)
def test_where_one_process_replays_no_steps_none_does_and_all_say_why(
    found: list[dict[str, Any]], name: str, said: str
) -> None:
    """The latter two hold in the second process alone, and the first one says so too."""
    first, second = (process[f"{name}, replay"] for process in found)
    assert first["lines"][-1].startswith(said)
    assert first["lines"] == second["lines"]
    assert len(first["losses"]) == len(second["losses"]) == STEPS
    assert first["acts"] == second["acts"] == []
    assert differences(first["state"], second["state"]) == []
    if name != "other numbers":  # whose network counts its calls on copies too
        assert differences(first["state"], found[0][f"{name}, off"]["state"]) == []


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Stand-ins for a GPU, and a note of the messages that a process sends to itself alone."""
    sent: list[Tensor] = []
    install(monkeypatch)
    monkeypatch.setattr(dist, "all_reduce", sent.append)
    monkeypatch.setattr(dist, "broadcast", lambda tensor, source: None)
    return sent


def both_ways(case: Case, steps: int) -> tuple[Captured, Any, Any]:
    """A training by captured steps of a GPU, and by ordinary ones: the driver, and the two states."""
    build = form_builder(case, FORMS["ensemble"], norm="batch", dropout=0.2)
    images = torch.randint(256, (steps, 24, 1, 8, 8), generator=torch.Generator().manual_seed(0)) / 255
    targets = torch.randint(10, (steps, 24), generator=torch.Generator().manual_seed(1))
    alone = Ranks(0, 1)
    captured, states = Captured(torch.device("cuda"), OfRanks(alone)), []
    for driver in (captured, Eager(OfRanks(alone))):
        with seeded("init"):
            state = case.algorithm.init(build, 240, steps)
        for number in range(steps):
            with seeded("step", number):
                driver.take(case.algorithm, state, Batch(images[number], targets[number]), number)
        states.append(state)
    return captured, *states


@pytest.mark.parametrize("name", ["map", "ivon", "svi"])
def test_the_graphs_of_a_gpu_have_the_messages_between_them(name: str, messages: list[Tensor]) -> None:
    """Two graphs, and an empty one before the seed; what is captured sends none."""
    captured, state, ordinary = both_ways(CASES[name], 8)
    assert captured.reason is None
    assert Machine.made == 3
    assert differences(state.state_dict(), ordinary.state_dict()) == []
    assert len(messages) == 2 * (8 + 1 + 8)  # parameters in float32 and figures in float64; one step is checked


def test_a_capture_that_fails_is_said_and_loses_no_step(
    messages: list[Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(OfRanks, "_average", failing_in_capture(OfRanks._average))
    _, state, ordinary = both_ways(CASES["map"], 6)
    assert "steps are no longer captured: the capture failed (no graph can end here)" in caplog.text
    assert differences(state.state_dict(), ordinary.state_dict()) == []


def failing_in_capture(average: Callable[..., None]) -> Callable[..., None]:
    def failing(self: OfRanks, tensors: Any, also: Any, *rest: Any) -> None:
        if isinstance(also.__self__, Graphs):
            raise RuntimeError("no graph can end here")
        average(self, tensors, also, *rest)

    return failing


def test_no_graph_ends_in_the_thread_of_a_backward_pass(messages: list[Tensor]) -> None:
    with Graphs() as tape, ThreadPoolExecutor(1) as backward:
        raised = backward.submit(tape.also, print).exception()
    assert isinstance(raised, RuntimeError)
    assert "processes exchange messages in the backward pass, where no CUDA graph can end" in str(raised)
