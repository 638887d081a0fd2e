"""Each process of a training uses its own GPU, also if `fit` is called from Python."""

import pytest
import torch
from torch import distributed, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, Execution, fit
from bayes_share.inference import train as training_module
from bayes_share.inference.execution import WhereTensorsAre
from bayes_share.inference.step.ranks import joined_by_torchrun
from bayes_share.models.model import Model


class NextStep(Exception):
    """Raised by the first thing that uses the device."""


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the GPUs that are chosen by a process that sees four of them, and is the fourth of its machine."""
    found: list[int] = []

    def stop(device: torch.device) -> None:
        raise NextStep

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    monkeypatch.setattr(training_module, "EpochSums", stop)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 7)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 8)
    monkeypatch.setenv("LOCAL_RANK", "3")
    return found


def begin(execution: Execution) -> None:
    """Begin a training, up to the first use of its device."""
    with pytest.raises(NextStep):
        fit(MAP(), Model(nn.Linear(2, 3)), (torch.zeros(8, 2), torch.zeros(8).long()), execution=execution)


@pytest.mark.parametrize("name", ["cuda", "auto"])
def test_fit_in_a_process_group_uses_the_gpu_numbered_by_local_rank(chosen: list[int], name: str) -> None:
    begin(Execution(name))  # type: ignore[arg-type]
    assert chosen == [3]


def test_a_training_without_a_process_group_does_not_change_the_gpu(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    begin(Execution("cuda"))
    assert chosen == []


def test_a_training_elsewhere_does_not_change_the_gpu(chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    begin(Execution("cpu"))
    begin(WhereTensorsAre(tensors_device=torch.device("cuda", 1)))
    monkeypatch.delenv("LOCAL_RANK")  # a launcher other than torchrun, after which the user has chosen a GPU
    begin(Execution("cuda"))
    assert chosen == []


def test_more_processes_than_gpus_are_refused(chosen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "4")
    expected = r"^LOCAL_RANK is 4, but this process sees 4 GPUs, numbered from 0: start at most one process per GPU$"
    with pytest.raises(InputError, match=expected):
        fit(MAP(), Model(nn.Linear(2, 3)), (torch.zeros(8, 2), torch.zeros(8).long()), execution=Execution("cuda"))
    monkeypatch.setattr(distributed, "is_initialized", lambda: False)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(InputError, match=expected), joined_by_torchrun(torch.device("cuda")):
        pass
    assert chosen == []
