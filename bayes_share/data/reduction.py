"""Data made smaller, for studies that a CPU can finish: fewer training images, and images of fewer pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor
from torch.nn import functional

from bayes_share.data.dataset import Data, Split
from bayes_share.data.image_format import in_form
from bayes_share.errors import InputError, option

_AT_A_TIME = 2000  # images in floating point


def some_of(split: Split, count: int, rng: Generator, where: str) -> Split:
    """Exactly so many images, drawn at random, of each class its share and one at least; in their order.

    Args:
        split: what is drawn from.
        count: how many images.
        rng: the source of randomness.
        where: the data set, for messages.

    Raises:
        InputError: more images than there are, or fewer than classes.
    """
    counts = split.labels.bincount()
    least = int((counts > 0).sum())
    if not least <= count <= len(split):
        raise InputError(
            f"{where}: {option('train_images')} must be from {least} (one of each class) to {len(split):,} (all that "
            f"are not set aside for validation), and is {count:,}"
        )
    shuffled = torch.randperm(len(split), generator=rng)
    by_class = shuffled[split.labels[shuffled].argsort(stable=True)].split(counts.tolist())
    taken = zip(by_class, _shares(counts.tolist(), count), strict=True)
    return split.at(torch.cat([of_class[:share] for of_class, share in taken]).sort().values)


def averaged(
    images: UInt8[Tensor, "image channel height width"], side: int, where: str
) -> UInt8[Tensor, "image channel side side"]:
    """Images of so many pixels a side, each the mean of those in its area, rounded.

    Where the sides do not divide, areas overlap by up to a pixel (torch's interpolation by "area").

    Args:
        images: of any number.
        side: height and width that they get.
        where: the data set, for messages.

    Raises:
        InputError: less than a pixel, or more than the images have.

    >>> averaged(torch.tensor([[[[0, 10], [20, 50]]]], dtype=torch.uint8), 1, "one image").item()
    20
    """
    height, width = images.shape[2:]
    if not 1 <= side <= min(height, width):
        raise InputError(
            f"{where}: images of {height} x {width} pixels cannot be enlarged: {option('image_size')} must be "
            f"from 1 to {min(height, width)}, and is {side}"
        )
    if (height, width) == (side, side):
        return images
    parts = (functional.interpolate(part.float(), (side, side), mode="area") for part in images.split(_AT_A_TIME))
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def in_form_of(
    data: Data, images: UInt8[Tensor, "image channel height width"], where: str
) -> UInt8[Tensor, "image new_channel new_height new_width"]:
    """Images from elsewhere, as a data set's own would be: of the size that these were stored in, then averaged.

    Args:
        data: the data set.
        images: of any size.
        where: they come from, for messages.

    Raises:
        InputError: a number of channels that cannot become the other.
    """
    formed = in_form(images, data.in_channels, data.stored_size, where)
    return formed if data.averaged_from is None else averaged(formed, data.image_size[0], where)


def _shares(counts: Sequence[int], total: int) -> list[int]:
    """The total divided in proportion to counts, each part at least 1 where its count is.

    What does not divide goes where the largest remainder is, at a tie to the earlier part.

    >>> _shares([10, 0, 10, 1], 7), _shares([100, 1, 1], 3)
    ([3, 0, 3, 1], [1, 1, 1])
    """
    wanted = [count * total / max(1, sum(counts)) for count in counts]
    shares = [max(min(1, count), int(share)) for count, share in zip(counts, wanted, strict=True)]
    while sum(shares) != total:
        step = 1 if sum(shares) < total else -1
        can = [i for i, share in enumerate(shares) if 0 < share + step <= counts[i]]
        nearest = max(can, key=lambda i: step * (wanted[i] - shares[i]))
        shares[nearest] += step
    return shares
