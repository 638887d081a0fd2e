"""Images brought to the size and the number of channels that a network takes."""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from bayes_share.errors import InputError

_AT_A_TIME = 500  # images in floating point
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: Recommendation ITU-R BT.601


def in_form(
    images: UInt8[Tensor, "image channel height width"], channels: int, size: tuple[int, int], where: str
) -> UInt8[Tensor, "image new_channel new_height new_width"]:
    """Images with another number of channels, and of another size.

    Grey becomes colour by repeating the channel, colour becomes grey by luminance (0.299, 0.587 and 0.114 of red, green
    and blue). Sizes change by bilinear interpolation, with antialiasing where images become smaller.

    Args:
        images: of any number.
        channels: that they get.
        size: height and width that they get; proportions may change.
        where: the images come from, for messages.

    Raises:
        InputError: a number of channels that cannot become the other.

    >>> in_form(torch.full((2, 3, 32, 32), 7, dtype=torch.uint8), 1, (8, 8), "sevens").unique()
    tensor([7], dtype=torch.uint8)
    """
    there = images.shape[1]
    if there != channels and {there, channels} != {1, 3}:
        raise InputError(
            f"{where}: images with {there} channels cannot be brought to the {channels} that the network takes; "
            f"only grey (1) and colour (3) become each other"
        )
    if there == channels and images.shape[2:] == size:
        return images
    return torch.cat([_as(part, channels, size) for part in images.split(_AT_A_TIME)])


def resized(
    images: UInt8[Tensor, "image channel height width"], size: tuple[int, int]
) -> UInt8[Tensor, "image channel new_height new_width"]:
    """Images of another size, bilinear, with antialiasing where they become smaller."""
    if images.shape[2:] == size:
        return images
    return _rounded(functional.interpolate(images.float(), size, mode="bilinear", antialias=True))


def _as(images: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    if images.shape[1] == 3 and channels == 1:
        weights = torch.tensor(_LUMINANCE, device=images.device)
        images = _rounded((images * weights[:, None, None]).sum(1, keepdim=True))
    images = resized(images, size)
    return images.expand(-1, channels, -1, -1).contiguous()


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
