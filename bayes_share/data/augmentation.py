"""Random flips and crops of a whole batch at once, drawn independently for each image.

Source: the usual recipe for CIFAR since He et al. (2016), "Deep Residual Learning for Image Recognition", section 4.2:
pad by an eighth of the size, flip half of the images, crop at random. Images are padded *after* normalisation, with 0,
which is the mean colour of the training images.

Random numbers come from torch's global generator of the images' device, which avoids synchronising with the host.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Images = Float[Tensor, "batch channel height width"]


def unchanged(images: Images) -> Images:
    """Return the images unchanged."""
    return images


def random_flip(images: Images) -> Images:
    """Flip each image horizontally with probability 1/2.

    Args:
        images: ``[batch, channel, height, width]``, normalised.
    """
    flipped = torch.rand(len(images), device=images.device).lt(0.5)
    return torch.where(flipped[:, None, None, None], images.flip(-1), images)


def random_crop(images: Images) -> Images:
    """Shift each image by up to an eighth of its height and width, or up to one pixel if that is more, padding with 0.

    Args:
        images: ``[batch, channel, height, width]``, normalised.
    """
    batch, channels, height, width = images.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    device = images.device
    top = torch.randint(2 * pad_y + 1, (batch,), device=device)
    left = torch.randint(2 * pad_x + 1, (batch,), device=device)
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    padded = functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
    image = torch.arange(batch, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def random_flip_crop(images: Images) -> Images:
    """Apply `random_flip`, then `random_crop`."""
    return random_crop(random_flip(images))


AUGMENTATIONS: Mapping[str, Callable[[Images], Images]] = {
    "none": unchanged,
    "flip": random_flip,
    "crop": random_crop,
    "flip-crop": random_flip_crop,
}
"""The augmentations of normalised training batches, by name."""
