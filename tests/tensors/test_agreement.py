"""The comparison of outputs: relative to their variation, entry by entry."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bayes_share.tensors.agreement import largest_difference, rounding, variation, varies


def outputs(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


def test_the_variation_is_that_between_members_or_else_between_examples() -> None:
    y = torch.tensor([[[1.0, 7.0, 3.0], [5.0, 9.0, 3.0]], [[2.0, 7.0, 3.0], [9.0, 9.0, 3.0]]])
    assert variation(y).tolist() == [2.0, 1.0, 0.0]  # 9 - (5 + 9) / 2; members are equal, 9 - (7 + 9) / 2; constant
    y[0, 0, 0] = -math.inf
    assert variation(y).tolist() == [2.0, 1.0, 0.0]
    assert variation(torch.tensor(-3.0)).item() == 3.0
    assert variation(torch.complex(y, 2 * y.nan_to_num(0, 0, 0)))[1].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", [0.0, 50.0, 1e3])
def test_a_constant_changes_the_difference_only_by_its_rounding(constant: float, dtype: torch.dtype) -> None:
    right = outputs(4, 3, 5)
    wrong = right.clone()
    wrong[2, 1, 3] += 0.1 * variation(right)[3]
    found = largest_difference((constant + wrong).to(dtype), (constant + right).to(dtype))
    expected = 0.1 / (1 + math.sqrt(torch.finfo(dtype).eps) * (constant + 2.2) / 1.2)
    assert found == pytest.approx(expected, rel=0.1)


def test_neither_padding_nor_other_units_hide_a_difference() -> None:
    right = outputs(4, 3, 5)
    wrong = right + 0.1
    for index, value in ((1, -1e9), (2, -math.inf)):
        right[..., index] = wrong[..., index] = value
    right[:, 0, 4] = wrong[:, 0, 4] = -1e9  # padding that depends on the example
    scale = float(variation(right)[[0, 3, 4]].min())
    assert largest_difference(wrong, right) == pytest.approx(0.1 / scale, rel=1e-3)
    assert largest_difference([wrong, 1e6 * right], [right, 1e6 * right]) == pytest.approx(0.1 / scale, rel=1e-3)
    assert largest_difference(right, right) == 0


def test_constants_must_be_equal_up_to_rounding() -> None:
    right = outputs(4, 3, 2)
    right[..., 0] = 1000.0
    for dtype in (torch.float32, torch.float64):
        rounded = right * (1 + 2 * torch.finfo(dtype).eps)
        assert largest_difference(rounded.to(dtype), right.to(dtype)) < rounding(right.to(dtype))
    wrong = right.clone()
    wrong[0, 0, 0] += 0.01
    assert largest_difference(wrong, right) > rounding(right)


def test_entries_that_vary_little_by_chance_have_the_scale_of_the_others() -> None:
    right = outputs(2, 2, 1000)
    right[..., 0] *= 1e-6
    noise = 1e-6 * outputs(2, 2, 1000).flip(-1)
    assert largest_difference(right + noise, right) < rounding(right)


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ((torch.zeros(2, 3), 1), (torch.zeros(2, 3),), None),
        (torch.zeros(2, 3), 0.0, None),
        (torch.zeros(2, 3), torch.zeros(2, 4), None),
        (torch.tensor([[1, 2]]), torch.tensor([[1, 3]]), math.inf),
        (torch.tensor([[1, 2]]), torch.tensor([[1, 2]]), 0.0),
        ({"rows": 6}, {"rows": 2}, math.inf),
        ({"rows": 6, "none": None}, {"rows": 6, "none": None}, 0.0),
        (torch.full((1, 2), math.nan), torch.full((1, 2), math.nan), 0.0),
        (torch.full((1, 2), math.nan), torch.zeros(1, 2), math.inf),
        (torch.tensor(1.1), torch.tensor(1.0), 0.1),
        (torch.zeros(2, 0), torch.zeros(2, 0), 0.0),
    ],
)
def test_structures_and_values_that_are_not_rounded(found: Any, expected: Any, difference: float | None) -> None:
    result = largest_difference(found, expected)
    assert result == (None if difference is None else pytest.approx(difference, rel=1e-5))


def test_rounding_is_that_of_the_least_precise_dtype() -> None:
    assert rounding(outputs(2, 3)) == 1e-4
    assert rounding([outputs(2, 3), outputs(2, 3, dtype=torch.float32), torch.tensor(3)]) == 1e-2
    assert rounding(outputs(2, 3, dtype=torch.bfloat16)) == 10 * 2**-7


def test_outputs_without_variation() -> None:
    assert varies({"y": outputs(2, 3), "loss": torch.tensor(0.0)})
    assert varies(torch.tensor(1.0))
    assert varies(torch.tensor([[1], [2]]))
    assert not varies([torch.full((2, 3), 50.0), torch.zeros(2, 0), torch.tensor(0.0)])
