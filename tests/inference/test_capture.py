"""Captured steps equal ordinary ones bit for bit for every algorithm, and fall back to them if capture fails."""

import copy
import logging
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, Case, digits, form_builder
from cuda_stand_in import install
from states import differences
from torch import Tensor, nn

from bayes_share.inference import MAP, NUTS, Build, Execution, Training, batches_of, execution
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.step.capture import Captured, Eager
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.tensors.seeding import seeded

KINDS = ("single", "ensemble")
EACH = pytest.mark.parametrize(
    ("case", "form"),
    [pytest.param(CASES[name], FORMS[kind], id=f"{name}-{kind}") for name in CASES for kind in KINDS if name != "nuts"],
)


def training(case: Case, build: Build, capture: Any, epochs: int = 3, **options: Any) -> Training:
    source = batches_of(digits(case.augment), case.batch_size, last_batch="pad")
    execution = Execution("cpu", capture=capture, **options)
    return Training(case.algorithm, build, source, epochs, seed=5, execution=execution)


def run_to_the_end(run: Training) -> Training:
    for _ in run.steps():
        pass
    return run


@EACH
def test_captured_steps_equal_ordinary_steps_bit_for_bit(case: Case, form: Any) -> None:
    build = form_builder(case, form, norm=case.norm, dropout=0.2)
    captured, ordinary = (run_to_the_end(training(case, build, capture)) for capture in ("replay", "off"))
    assert isinstance(captured._driver, Captured)
    assert captured._driver.reason is None
    assert len(captured._driver._steps) == 1
    assert differences(captured.state.state_dict(), ordinary.state.state_dict()) == []
    without_time = [{k: v for k, v in line.items() if k != "seconds"} for line in captured.history]
    assert without_time == [{k: v for k, v in line.items() if k != "seconds"} for line in ordinary.history]


def test_captured_steps_equal_ordinary_steps_in_bfloat16() -> None:
    case = CASES["ivon"]
    build = form_builder(case, FORMS["ensemble"])
    one, other = (run_to_the_end(training(case, build, way, precision="bfloat16")) for way in ("replay", "off"))
    assert differences(one.state.state_dict(), other.state.state_dict()) == []


def test_a_resumed_captured_training_ends_as_an_uninterrupted_one() -> None:
    case = CASES["ivon"]
    build = form_builder(case, FORMS["ensemble"], norm="batch")
    whole, first = training(case, build, "replay"), training(case, build, "replay")
    run_to_the_end(whole)
    steps = first.steps()
    for _ in range(7):
        next(steps)
    # Load into a training that has already recorded steps, on tensors that the load replaces.
    second = training(case, build, "replay")
    others = second.steps()
    for _ in range(5):
        next(others)
    second.load_state_dict(first.state_dict())
    run_to_the_end(second)
    assert differences(second.state.state_dict(), whole.state.state_dict()) == []


def test_batches_of_different_shapes_are_recorded_separately() -> None:
    """Batches of 5 and 3 rows, with and without weights, are recorded; a fifth form runs as ordinary steps."""
    x = torch.randn(30, 5, 3, generator=torch.Generator().manual_seed(0))
    forms = [(rows, has_weights) for rows in (5, 3) for has_weights in (False, True)] + [(1, False)]
    captured, ordinary = Captured(torch.device("cpu")), Eager()

    def states() -> tuple[Any, Any]:
        with seeded("init"):
            first = MAP().init(lambda: Model(nn.Linear(3, 1), Gaussian(0.5)), 12, 30)
        return first, copy.deepcopy(first)

    one, other = states()
    for number in range(30):
        rows, has_weights = forms[number % 5]
        batch = Batch(x[number, :rows], x[number, :rows, :1], torch.rand(rows) if has_weights else None)
        infos = [driver.take(MAP(), state, batch, number) for driver, state in ((captured, one), (ordinary, other))]
        assert torch.equal(infos[0].loss, infos[1].loss)
        assert differences(one.state_dict(), other.state_dict()) == []
    assert len(captured._steps) == 4


class Branches(nn.Module):
    """A network that branches on the sign of the mean output, which is read on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.flatten(1))
        return y if y.mean() > 0 else 2 * y


class Counts(nn.Module):
    """A network whose outputs depend on the number of its calls, which is counted on the host."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        Counts.calls += 1
        return self.layer(x.flatten(1)) * (1 + Counts.calls % 7)


class RunningMean(nn.Module):
    """A network with a running mean that is an attribute, not a buffer: a replay does not assign it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.mean = torch.zeros(64)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return self.layer(x - self.mean)


class Closure(nn.Module):
    """A network with a function that uses its layer, which a copy of the network uses too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.block = lambda x: self.layer(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x.flatten(1))


def test_a_replay_with_other_results_falls_back_to_ordinary_steps(caplog: pytest.LogCaptureFixture) -> None:
    run = training(CASES["map"], lambda: Model(Counts()), "replay")
    driver = run._driver
    assert isinstance(driver, Captured)
    run_to_the_end(run)
    assert driver.reason is not None
    assert "steps are no longer captured: a replay of the recorded step gave a different result" in caplog.text
    assert run.step == run.num_steps
    assert all(line["loss"] < 100 for line in run.history)


def test_capture_on_runs_ordinary_steps_on_a_cpu_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bayes_share.inference.execution"):
        assert isinstance(Execution("cpu", capture="off").driver, Eager)
        assert isinstance(Execution("cpu", capture="auto").driver, Eager)
        assert caplog.messages == []
        assert isinstance(Execution("cpu", capture="on").driver, Eager)
    assert caplog.messages == ["steps are not captured: they run on a CPU"]
    assert isinstance(Execution("cpu", capture="replay").driver, Captured)


@pytest.mark.parametrize(("known", "driver"), [((), Eager), (("NVIDIA X1",), Captured)])
def test_auto_captures_on_gpus_for_which_it_was_measured(
    known: tuple[str, ...], driver: type, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X1")
    monkeypatch.setattr(execution, "CAPTURED_BY_DEFAULT", frozenset(known))
    with caplog.at_level(logging.INFO, "bayes_share.inference.execution"):
        assert isinstance(Execution("cuda").driver, driver)
    said = ["steps are not captured: this has not been measured on NVIDIA X1; capture on captures them"]
    assert caplog.messages == ([] if known else said)


def test_a_training_that_resumes_in_another_way_says_so(caplog: pytest.LogCaptureFixture) -> None:
    case = CASES["map"]
    build = form_builder(case, FORMS["single"])
    first = training(case, build, "replay")
    next(first.steps())
    with caplog.at_level(logging.INFO, "bayes_share.inference.train"):
        training(case, build, "replay").load_state_dict(first.state_dict())
        assert caplog.messages == ["resumed after step 1 of 15"]
        training(case, build, "off").load_state_dict(first.state_dict())
    (said,) = set(caplog.messages) - {"resumed after step 1 of 15"}
    assert said == "the training ran on cpu, captured steps and resumes on cpu: results will differ slightly"


@pytest.mark.parametrize(
    ("case", "build", "reason"),
    [
        (CASES["map"], lambda: Model(Branches()), "a tensor is read as a truth value|read as a number"),
        (CASES["map"], lambda: Model(RunningMean()), r"the network assigns attributes that are not buffers \(mean\)"),
        (CASES["map"], lambda: Model(Closure()), "block of the Closure network .* define a method"),
        (
            replace(CASES["nuts"], algorithm=NUTS(max_tree_depth=1)),
            form_builder(CASES["nuts"], FORMS["single"], norm="none"),
            "a step of NUTSChain is a transition",
        ),
    ],
)
def test_steps_that_cannot_be_captured_run_one_by_one_and_log_the_reason(
    case: Case, build: Build, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "bayes_share.inference.step.capture"):
        captured = run_to_the_end(training(case, build, "replay", epochs=5))
    ordinary = run_to_the_end(training(case, build, "off", epochs=5))
    assert differences(captured.state.state_dict(), ordinary.state.state_dict()) == []
    (said,) = (record.message for record in caplog.records if record.name.endswith("capture"))
    assert re.search(f"not captured: .*({reason})", said)
