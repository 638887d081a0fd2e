"""Prediction in parts: every input once and in order, with smaller parts if they do not fit in memory."""

import pytest
import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, predict
from bayes_share.inference.draws.in_parts import InParts
from bayes_share.models.model import Model


@pytest.mark.parametrize("fits", [1, 3, 7])
def test_parts_are_halved_until_they_fit_in_memory(fits: int) -> None:
    sizes = []

    def run(part: Tensor) -> Tensor:
        sizes.append(len(part))
        if len(part) > fits:
            raise torch.OutOfMemoryError("no memory")
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
