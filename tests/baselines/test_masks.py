"""Masks have equally many ones, use every channel, and overlap as given by the scale."""

import pytest
import torch

from bayes_share.errors import InputError
from bayes_share.layers.masks import overlapping_masks


@pytest.mark.parametrize("members", [2, 4, 8])
@pytest.mark.parametrize("channels", [1, 3, 16, 64, 512])
@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 4.0])
def test_masks_have_equally_many_ones_and_use_every_channel(members: int, channels: int, scale: float) -> None:
    torch.manual_seed(0)
    try:
        masks = overlapping_masks(members, channels, scale)
    except InputError as error:
        assert channels <= 3
        assert "input channels: use another scale, or leave the layer out" in str(error)  # noqa: PT017
        return
    assert masks.shape == (members, channels)
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    ones = masks.sum(1)
    assert bool((ones == ones[0]).all())
    assert channels == 1 or scale == 1 or ones[0] < channels  # masks that differ
    assert bool(masks.any(0).all())


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.0])
def test_two_masks_share_the_fraction_one_over_scale_of_their_ones(scale: float) -> None:
    torch.manual_seed(0)
    masks = torch.stack([overlapping_masks(4, 512, scale) for _ in range(20)])
    ones = masks.sum(2)
    common = torch.einsum("tmc,tnc->tmn", masks, masks)[:, *torch.triu_indices(4, 4, 1)] / ones[:, :1]
    error = float(common.std() / common.numel() ** 0.5)
    rounded = 1 / float(ones[0, 0])  # what whole numbers of ones and places may take
    assert abs(float(common.mean()) - 1 / scale) < 5 * error + rounded


def test_with_scale_1_all_masks_are_ones() -> None:
    assert bool((overlapping_masks(4, 16, 1.0) == 1).all())


@pytest.mark.parametrize("scale", [0.5, 0.0, -1.0, float("nan"), float("inf")])
def test_invalid_scales_raise(scale: float) -> None:
    with pytest.raises(InputError, match="scale of masks must be from 1"):
        overlapping_masks(4, 16, scale)
