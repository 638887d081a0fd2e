"""Patches of scikit-learn's two sample photographs: natural images that need no download."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from bayes_share.data.image_format import resized

NUM_PATCHES = 1000
"""The number of patches. Two photographs do not give more that differ."""

_SMALLEST, _LARGEST = 64, 256  # pixels of a patch's longer side in a photograph of 640 x 427


def photograph_patches(
    size: tuple[int, int], rng: Generator, count: int = NUM_PATCHES
) -> UInt8[Tensor, "image 3 height width"]:
    """Cut patches from the photographs, half from each, at random positions and of random extent.

    Args:
        size: height and width to which each patch is resized; patches are cut with this aspect ratio.
        rng: the random generator.
        count: the number of patches.

    Returns:
        ``[image, 3, height, width]``, uint8.
    """
    from sklearn.datasets import load_sample_images

    photographs = [torch.from_numpy(np.array(image)).movedim(-1, 0) for image in load_sample_images().images]
    patches = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        longer = int(torch.randint(_SMALLEST, _LARGEST + 1, (), generator=rng))
        height, width = (max(1, round(longer * side / max(size))) for side in size)
        top, left = (
            int(torch.randint(whole - part + 1, (), generator=rng))
            for whole, part in zip(photograph.shape[1:], (height, width), strict=True)
        )
        patch = photograph[None, :, top : top + height, left : left + width]
        patches.append(resized(patch, size))
    return torch.cat(patches)
