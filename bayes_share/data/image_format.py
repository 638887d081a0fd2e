"""Convert images to the size and number of channels that a network takes."""

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from bayes_share.errors import InputError

_AT_A_TIME = 500  # images converted to floating point at once
_LUMINANCE = (0.299, 0.587, 0.114)  # weights of red, green and blue: Recommendation ITU-R BT.601


def in_form(
    images: UInt8[Tensor, "image channel height width"], channels: int, size: tuple[int, int], where: str
) -> UInt8[Tensor, "image new_channel new_height new_width"]:
    """Convert images to another number of channels and another size.

    Grey images become colour by repeating the channel. Colour images become grey by luminance (0.299 red + 0.587 green
    + 0.114 blue). Images are resized by bilinear interpolation, with antialiasing if they become smaller.

    Args:
        images: the images.
        channels: the new number of channels.
        size: the new height and width; the aspect ratio may change.
        where: where the images come from, for messages.

    Raises:
        InputError: the number of channels cannot be converted.

    >>> in_form(torch.full((2, 3, 32, 32), 7, dtype=torch.uint8), 1, (8, 8), "sevens").unique()
    tensor([7], dtype=torch.uint8)
    """
    found = images.shape[1]
    if found != channels and {found, channels} != {1, 3}:
        raise InputError(
            f"{where}: images with {found} channels cannot be converted to the {channels} that the network takes; "
            f"only grey (1) and colour (3) can be converted to each other"
        )
    if found == channels and images.shape[2:] == size:
        return images
    return torch.cat([_converted(part, channels, size) for part in images.split(_AT_A_TIME)])


def resized(
    images: UInt8[Tensor, "image channel height width"], size: tuple[int, int]
) -> UInt8[Tensor, "image channel new_height new_width"]:
    """Resize images by bilinear interpolation, with antialiasing if they become smaller."""
    if images.shape[2:] == size:
        return images
    return _rounded(functional.interpolate(images.float(), size, mode="bilinear", antialias=True))


def _converted(images: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    if images.shape[1] == 3 and channels == 1:
        weights = torch.tensor(_LUMINANCE, device=images.device)
        images = _rounded((images * weights[:, None, None]).sum(1, keepdim=True))
    images = resized(images, size)
    return images.expand(-1, channels, -1, -1).contiguous()


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
