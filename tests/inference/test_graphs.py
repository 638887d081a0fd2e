"""Steps captured as CUDA graphs, with stand-ins for the GPU: right numbers, and a process that survives failures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, digits, form_builder
from cuda_stand_in import Graph, Machine, install
from states import differences
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bayes_share.inference import IVON, MAP, DeepEnsemble
from bayes_share.inference.algorithm import Batch, Build, Inference
from bayes_share.inference.step import capture
from bayes_share.inference.step.capture import Captured, Eager
from bayes_share.inference.step.graphs import Graphs
from bayes_share.inference.step.recording import HostRead, ReadsNothing
from bayes_share.inference.step.updates import load_optimizer, make_optimizer
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble
from bayes_share.tensors.seeding import seeded

GPU = torch.device("cuda")


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Stand-ins for CUDA, and the graphs that are made."""
    made: list[Graph] = []

    def graph() -> Graph:
        made.append(Graph())
        return made[-1]

    install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    return made


def trained(driver: Any, algorithm: Inference[Any], build: Build, steps: int = 8, precision: Any = None) -> Any:
    """The state after some steps."""
    images, targets = digits().train.inputs[:48] / 255, digits().train.targets[:48]
    with seeded("init"):
        state = algorithm.init(build, 48, steps)
    for number in range(steps):
        with seeded("step", number), torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
            part = slice(12 * (number % 4), 12 * (number % 4) + 12)
            driver.take(algorithm, state, Batch(images[part], targets[part]), number)
    return state


def assert_captured_equals_eager(algorithm: Inference[Any], build: Build, **options: Any) -> None:
    captured = Captured(GPU)
    found, expected = (trained(driver, algorithm, build, **options) for driver in (captured, Eager()))
    assert captured.reason is None
    assert differences(found.state_dict(), expected.state_dict()) == []


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("nuts", "distill")])
def test_graphs_give_the_numbers_of_eager_steps(name: str, graphs: list[Graph]) -> None:
    """Captured values are undefined until a replay, and parallel networks have their own generator states."""
    case = CASES[name]
    assert_captured_equals_eager(case.algorithm, form_builder(case, FORMS["single"], norm=case.norm, dropout=0.2))
    assert len(graphs) == 1
    assert len(graphs[0].registered) == (2 if name == "deep-ensemble" else 0)
    assert len({stream for _, stream, *_ in graphs[0].calls}) == (3 if name == "deep-ensemble" else 1)
    assert graphs[0].races == 0


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_adam_is_captured(optimizer: Any, precision: Any, graphs: list[Graph]) -> None:
    """Torch refuses to capture steps of optimizers that are not `capturable`."""
    build = form_builder(CASES["map"], FORMS["single"])
    for algorithm in (MAP(optimizer=optimizer), DeepEnsemble(of=MAP(optimizer=optimizer), networks=2)):
        assert_captured_equals_eager(algorithm, build, precision=precision)


def test_an_optimizer_can_be_captured_after_loading_an_older_state() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizers = [make_optimizer("adam", [{"params": [weight], "lr": torch.tensor(0.1)}], 0.9) for _ in range(2)]
    old = optimizers[0].state_dict()
    old["param_groups"][0]["capturable"] = False
    load_optimizer(optimizers[1], old)
    assert optimizers[1].param_groups[0]["capturable"] is True


@pytest.mark.parametrize(("norm", "streams"), [("batch", 1), ("layer", 4)])
def test_members_run_in_parallel_unless_they_share_buffers(norm: str, streams: int, graphs: list[Graph]) -> None:
    """Members of one network share running statistics, which parallel members would update at the same time."""

    class Net(nn.Sequential):
        def __init__(self) -> None:
            norms = {"batch": nn.BatchNorm1d(16), "layer": nn.LayerNorm(16)}
            super().__init__(nn.Flatten(), nn.Linear(64, 16), norms[norm], nn.ReLU(), nn.Linear(16, 10))

    assert_captured_equals_eager(MAP(), lambda: Model(ensemble(Net(), 3, "random_sign", strategy="loop")))
    assert len({stream for _, stream, *_ in graphs[0].calls}) == streams
    assert graphs[0].races == 0


class FailsInCapture(nn.Module):
    """A network that a GPU refuses to capture."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        if Machine.graph is not None:
            raise RuntimeError("operation not permitted when stream is capturing")
        return y


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "algorithm",
    [MAP(optimizer="adamw"), DeepEnsemble(of=MAP(), networks=2), DeepEnsemble(of=IVON(hess_init=5.0), networks=2)],
)
def test_training_goes_on_after_a_failed_capture(
    algorithm: Inference[Any],
    precision: Any,
    graphs: list[Graph],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step is taken eagerly, with no cast of a weight that was captured and never computed."""
    before, repairs = Machine.stream, []
    monkeypatch.setattr(Graphs, "_repair", lambda self: repairs.append(self))
    found = trained(Captured(GPU), algorithm, lambda: Model(FailsInCapture()), precision=precision)
    expected = trained(Eager(), algorithm, lambda: Model(FailsInCapture()), precision=precision)
    assert differences(found.state_dict(), expected.state_dict()) == []
    assert "the capture failed (operation not permitted when stream is capturing)" in caplog.text
    assert not Machine.default.is_captured
    assert Machine.stream is before
    assert repairs == []  # the capture could be ended


@pytest.mark.parametrize("error", [None, ValueError("the first error")])
def test_the_process_is_repaired_when_a_capture_cannot_be_ended(error: Any, graphs: list[Graph]) -> None:
    before = Machine.stream
    with pytest.raises(RuntimeError if error is None else ValueError, match="unjoined" if error is None else "first"):  # noqa: SIM117, PT012
        with Graphs():
            torch.cuda.Stream().wait_stream(torch.cuda.current_stream())  # never joined
            if error is not None:
                raise error
    assert Machine.stream is before
    assert not Machine.default.is_captured


def test_too_little_memory_for_the_check_of_a_capture_ends_capturing(
    graphs: list[Graph], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lacks_memory(content: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(capture, "cloned", lacks_memory)
    build = form_builder(CASES["map"], FORMS["single"])
    found, expected = (trained(driver, MAP(), build) for driver in (Captured(GPU), Eager()))
    assert differences(found.state_dict(), expected.state_dict()) == []
    assert "steps are no longer captured: there is too little memory" in caplog.text


@pytest.mark.parametrize(
    "act", [lambda x: x.cpu(), lambda x: torch.ones(3).to("cuda"), lambda x: x.copy_(torch.ones(3))]
)
def test_a_trial_refuses_copies_between_host_and_device(act: Callable[[Tensor], Tensor]) -> None:
    with FakeTensorMode(), pytest.raises(HostRead, match="copied between the host and a device"), ReadsNothing():
        act(torch.empty(3, device="cuda"))


def test_states_on_a_gpu_are_compared_there() -> None:
    with FakeTensorMode():
        here = {"weight": torch.empty(3, device="cuda")}
        assert capture.cloned(here)["weight"].device.type == "cuda"
