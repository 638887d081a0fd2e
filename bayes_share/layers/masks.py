"""Masks of a layer's inputs that overlap as much as is asked for: Masksembles, arXiv 2012.08334."""

import math

import torch
from torch import Tensor

from bayes_share.errors import InputError

_TRIES = 1000
_LARGEST = 100.0


def check_mask_scale(scale: int | float) -> None:
    """Raise an InputError unless masks can have this scale."""
    if not isinstance(scale, (int, float)) or not 1 <= scale <= _LARGEST:
        raise InputError(f"the scale of masks must be from 1 (all masks are ones) to {_LARGEST:g}, and is {scale}")


def overlapping_masks(members: int, channels: int, scale: int | float) -> Tensor:
    """A mask of zeros and ones for each member, drawn from torch's global generator on the CPU.

    Each mask has the same number of ones, k. They are drawn on about ``k * scale`` places, and a place where no mask
    has a one is left out: the places that remain are the channels. So two masks have about ``k / scale`` channels in
    common, and with scale 1 all masks are ones. k and the number of places are chosen so that the number of channels
    comes out right (section 3.2 of the paper).

    Args:
        members: how many masks.
        channels: of each.
        scale: at least 1; of published networks 1.5 to 4.

    Returns:
        ``[member, channel]``, float32; every channel is in some mask.

    Raises:
        InputError: a scale that masks cannot have, or too few channels for it.
    """
    check_mask_scale(scale)
    ones, places = _sizes(members, channels, scale)
    if ones == channels > 1 and scale > 1 and members > 1:
        raise _too_few(members, channels, scale)
    for _ in range(_TRIES):
        order = torch.rand(members, places).argsort(dim=1)
        masks = (order < ones).float()
        used = masks.any(dim=0)
        if int(used.sum()) == channels:
            return masks[:, used]
    raise _too_few(members, channels, scale)


def _too_few(members: int, channels: int, scale: float) -> InputError:
    return InputError(
        f"there are no {members} masks of scale {scale:g} for a layer with {channels} input channels: use "
        "another scale, or leave the layer out"
    )


def _sizes(members: int, channels: int, scale: int | float) -> tuple[int, int]:
    """The ones of each mask, and the places that they are drawn on, so that about as many places as channels are used.

    A place is in no mask with the probability ``(1 - ones / places) ** members``.
    """
    ones = max(1, min(channels, round(channels / (scale * (1 - (1 - 1 / scale) ** members)))))

    def used(places: int) -> float:
        return places * (1 - (1 - ones / places) ** members)

    candidates = range(max(ones, channels), max(ones, channels) + max(2, math.ceil(ones * scale)) + 1)
    return ones, min(candidates, key=lambda places: abs(used(places) - channels))
