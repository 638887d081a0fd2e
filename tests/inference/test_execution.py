"""`Execution`: devices, precision and memory format."""

from typing import Any

import pytest
import torch
from algorithms import SIZES, builder, digits, trained

from bayes_share.errors import InputError
from bayes_share.inference import MAP, Execution, Training, batches_of

CPU = {"device": "cpu"}


def training(size: int, execution: Execution, name: str = "lenet") -> Training:
    return trained(
        Training(MAP(learning_rate=0.02), builder(size, name=name), batches_of(digits(), 48), 2, execution=execution)
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpuu"}, "unknown device 'cpuu': did you mean 'cpu'"),
        ({"precision": "bfloat"}, "unknown precision 'bfloat': did you mean 'bfloat16'"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Execution(**options)


def test_cuda_is_refused_if_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="sees no CUDA device here; use 'cpu' or 'auto'"):
        Execution(device="cuda")
    assert Execution(device="auto").torch_device == torch.device("cpu")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "options", [{"precision": "bfloat16"}, {"channels_last": True}, {"precision": "bfloat16", "channels_last": True}]
)
def test_precision_and_memory_format_change_only_the_rounding(size: int, options: dict[str, Any]) -> None:
    plain, other = [training(size, Execution(**CPU, **more)) for more in ({}, options)]
    for value in other.state.model.state_dict().values():
        assert value.dtype in (torch.float32, torch.int64, torch.int8)
    for memory in other.state.stepper.optimizer.state.values():
        assert all(value.dtype == torch.float32 for value in memory.values())
    logits, expected = other.predict(other.data.test), plain.predict(plain.data.test)
    assert logits.dtype == torch.float32
    if "precision" in options:
        assert not torch.equal(logits, expected)
    rounding = (logits.softmax(-1) - expected.softmax(-1)).abs().max()
    assert rounding < (0.1 if "precision" in options else 1e-3)
    assert other.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_channels_last_applies_to_images_and_convolution_weights(size: int) -> None:
    run = training(size, Execution(**CPU, channels_last=True))
    weights = [value for value in run.state.model.parameters() if value.ndim == 4 and min(value.shape[1:]) > 1]
    assert weights
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in weights)
    images = torch.zeros(4, 3, 5, 5)
    placed = run.execution.place_inputs(images)
    assert placed.is_contiguous(memory_format=torch.channels_last)
    assert Execution(**CPU).place_inputs(images).is_contiguous()
    assert run.execution.place_inputs(torch.zeros(4, 7)).shape == (4, 7)
