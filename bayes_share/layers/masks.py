"""Input masks of layers with a given overlap between members: Masksembles, arXiv 2012.08334."""

import math

import torch
from torch import Tensor

from bayes_share.errors import InputError

_TRIES = 1000  # attempts to draw masks that use exactly the layer's channels
_LARGEST = 100.0  # the largest accepted scale


def check_mask_scale(scale: int | float) -> None:
    """Raise InputError unless the scale is valid."""
    if not isinstance(scale, (int, float)) or not 1 <= scale <= _LARGEST:
        raise InputError(f"the scale of masks must be from 1 (all masks are ones) to {_LARGEST:g}, and is {scale}")


def overlapping_masks(members: int, channels: int, scale: int | float) -> Tensor:
    """Draw a binary mask for each member, from torch's global generator on the CPU.

    All masks have the same number of ones, k. They are drawn over about ``k * scale`` positions. Positions where no
    mask has a one are then removed, and the remaining positions are the channels. k and the number of positions are
    chosen so that the number of channels is as requested (section 3.2 of the paper). Two masks share about ``k /
    scale`` channels. With scale 1, all masks consist of ones.

    Args:
        members: the number of masks.
        channels: the number of channels of each mask.
        scale: at least 1; published networks use 1.5 to 4.

    Returns:
        The masks ``[member, channel]``, float32. Every channel is used by at least one mask.

    Raises:
        InputError: if the scale is invalid, or the layer has too few channels for it.
    """
    check_mask_scale(scale)
    ones, positions = _sizes(members, channels, scale)
    if ones == channels > 1 and scale > 1 and members > 1:
        raise _too_few(members, channels, scale)
    for _ in range(_TRIES):
        order = torch.rand(members, positions).argsort(dim=1)
        masks = (order < ones).float()
        used = masks.any(dim=0)
        if int(used.sum()) == channels:
            return masks[:, used]
    raise _too_few(members, channels, scale)


def input_masks(shape: tuple[int, ...], scale: int | float) -> Tensor:
    """Draw masks for the input factors r of a layer, in their shape.

    Args:
        shape: ``[member, in]`` or, for blocks, ``[member, out_block, in_block, in / in_block]``. All blocks of outputs
            have the same mask.
        scale: as in `overlapping_masks`.
    """
    members, *blocks, inputs = shape
    masks = overlapping_masks(members, math.prod(blocks[1:]) * inputs, scale)
    return masks.reshape(members, *[1] * len(blocks[:1]), *blocks[1:], inputs).expand(shape).clone()


def _too_few(members: int, channels: int, scale: float) -> InputError:
    return InputError(
        f"{members} masks of scale {scale:g} do not exist for a layer with {channels} input channels: use "
        "another scale, or leave the layer out"
    )


def _sizes(members: int, channels: int, scale: int | float) -> tuple[int, int]:
    """Choose the number of ones per mask and of positions, so that the expected number of used positions is `channels`.

    A position is unused with probability ``(1 - ones / positions) ** members``.
    """
    ones = max(1, min(channels, round(channels / (scale * (1 - (1 - 1 / scale) ** members)))))

    def expected_used(positions: int) -> float:
        return positions * (1 - (1 - ones / positions) ** members)

    candidates = range(max(ones, channels), max(ones, channels) + max(2, math.ceil(ones * scale)) + 1)
    return ones, min(candidates, key=lambda positions: abs(expected_used(positions) - channels))
