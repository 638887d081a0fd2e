"""Prediction in parts: every input once and in order, with smaller parts if they do not fit in memory."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, predict
from bayes_share.inference.draws.in_parts import InParts
from bayes_share.inference.step.ranks import Ranks
from bayes_share.models.model import Model

LACKS = {
    "allocator": torch.OutOfMemoryError("no memory"),
    "host": RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory"),
    "NumPy": MemoryError(),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "cuBLAS handle": RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    "cuDNN workspace": RuntimeError("GET was unable to find an engine to execute this computation"),
    "cuDNN workspace in older versions": RuntimeError("Unable to find an engine to execute this computation"),
}


@pytest.mark.parametrize(
    ("fits", "lack"),
    [(1, "allocator"), (3, "allocator"), *((7, name) for name in LACKS)],
)
def test_parts_are_halved_until_they_fit_in_memory(fits: int, lack: str) -> None:
    sizes = []

    def run(part: Tensor) -> Tensor:
        sizes.append(len(part))
        if len(part) > fits:
            raise LACKS[lack]
        return part + 1

    in_parts = InParts(10, torch.device("cpu"))
    x = torch.arange(24.0)
    for _ in range(2):
        assert torch.equal(torch.cat(in_parts(run, x)), x + 1)
    failed = [number for number, size in enumerate(sizes) if size > fits]
    assert failed == list(range(len(failed)))  # the size that fits is found once, with the first part
    assert max(size for size in sizes if size <= fits) > fits // 2


def test_a_single_input_that_does_not_fit_in_memory_raises() -> None:
    def run(part: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        InParts(4, torch.device("cpu"))(run, torch.zeros(4))


def test_other_errors_are_raised_at_once() -> None:
    sizes = []

    def run(part: Tensor) -> Tensor:
        sizes.append(len(part))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        InParts(4, torch.device("cpu"))(run, torch.zeros(4))
    assert sizes == [4]


def test_each_process_computes_all_its_parts_before_it_waits_for_others() -> None:
    events: list[str] = []

    class Second(Ranks):
        def told(self, number: int, found: Any) -> Any:
            events.append(f"exchange {number}")
            return [torch.full((2,), -1.0)] if found is None else found

        def are_equal(self, digest: str) -> bool:
            events.append("compare")
            return True

    def run(part: Tensor) -> Tensor:
        events.append(f"compute {int(part[0])}")
        return part

    found = InParts(2, torch.device("cpu"), Second(1, 2))(run, torch.arange(8.0))
    assert events == ["compute 2", "compute 6", "compare", *(f"exchange {number}" for number in range(4))]
    assert torch.cat(found).tolist() == [-1, -1, 2, 3, -1, -1, 6, 7]


def test_a_prediction_batch_size_of_0_is_refused() -> None:
    state = MAP().init(lambda: Model(torch.nn.Linear(2, 2)), 10, 10)
    with pytest.raises(InputError, match="batch size of a prediction must be at least 1, not 0"):
        predict(MAP(), state, torch.zeros(3, 2), batch_size=0)


@pytest.mark.parametrize("layer", [nn.Linear(4, 2), nn.Conv2d(1, 2, 2)])
def test_uint8_images_are_refused_with_advice(layer: nn.Module) -> None:
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    in_parts = InParts(None, torch.device("cpu"))
    with pytest.raises(InputError, match="cannot compute with uint8 images: normalise them as in training"):
        in_parts(layer, images)
    assert in_parts(lambda part: layer(part / 255), images)[0].shape[0] == 3
