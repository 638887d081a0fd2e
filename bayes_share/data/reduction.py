"""Reduce data for studies on a CPU: fewer training images, and smaller images."""

from collections.abc import Sequence

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor
from torch.nn import functional

from bayes_share.data.dataset import Data, Split
from bayes_share.data.image_format import in_form
from bayes_share.errors import InputError, option

_AT_A_TIME = 2000  # images converted to floating point at once


def some_of(split: Split, count: int, rng: Generator, where: str) -> Split:
    """Draw a random subset of exactly `count` images, stratified by class, in their original order.

    Every class keeps at least one image.

    Args:
        split: the images to draw from.
        count: the number of images.
        rng: the random generator.
        where: the data set, for messages.

    Raises:
        InputError: `count` is larger than the number of images, or smaller than the number of classes.
    """
    counts = split.labels.bincount()
    least = int((counts > 0).sum())
    if not least <= count <= len(split):
        raise InputError(
            f"{where}: {option('train_images')} must be from {least} (one of each class) to {len(split):,} (all "
            f"training images), and is {count:,}"
        )
    shuffled = torch.randperm(len(split), generator=rng)
    by_class = shuffled[split.labels[shuffled].argsort(stable=True)].split(counts.tolist())
    taken = zip(by_class, _shares(counts.tolist(), count), strict=True)
    return split.at(torch.cat([of_class[:share] for of_class, share in taken]).sort().values)


def averaged(
    images: UInt8[Tensor, "image channel height width"], side: int, where: str
) -> UInt8[Tensor, "image channel side side"]:
    """Reduce images to squares by averaging, rounded.

    If the size is not a multiple of `side`, the averaged areas overlap by up to a pixel (torch's "area" interpolation).

    Args:
        images: the images.
        side: the new height and width.
        where: the data set, for messages.

    Raises:
        InputError: `side` is below 1 or larger than the images.

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
    """Convert images to the form of a data set's own: resize them to its stored size, then average them down.

    Args:
        data: the data set.
        images: images of any size.
        where: where the images come from, for messages.

    Raises:
        InputError: the number of channels cannot be converted.
    """
    formed = in_form(images, data.in_channels, data.stored_size, where)
    return formed if data.averaged_from is None else averaged(formed, data.image_size[0], where)


def _shares(counts: Sequence[int], total: int) -> list[int]:
    """Divide a total in proportion to counts, giving at least 1 to every count above 0.

    Remaining units go to the largest remainders, or to the earlier count in a tie.

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
