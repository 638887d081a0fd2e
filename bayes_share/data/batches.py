"""Batches made by tensor operations on the device of the images, without worker processes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bayes_share.data.augmentation import AUGMENTATIONS
from bayes_share.data.dataset import Data, Split
from bayes_share.errors import InputError
from bayes_share.tensors.seeding import generator

Batch = tuple[Float32[Tensor, "batch channel height width"], Int64[Tensor, "batch"]]


def epoch_order(
    num_data: int, seed: int, epoch: int, device: torch.device | str = "cpu", member: int = 0
) -> Int64[Tensor, "num_data"]:
    """Return the order in which an epoch visits the training data, drawn with the key ``(seed, "epoch", epoch)``.

    Args:
        num_data: the number of examples.
        seed: the seed of the run.
        epoch: the epoch, counted from 0.
        device: the device to draw on; CPU and GPU give different orders.
        member: the member's index, if each member has its own order; members after the first have it in their key.

    Returns:
        A permutation of the indices, ``[num_data]``, on the device.
    """
    key = (seed, "epoch", epoch, member) if member else (seed, "epoch", epoch)
    return torch.randperm(num_data, generator=generator(*key, device=device), device=device)


def train_batch(data: Data, indices: Int64[Tensor, "batch"]) -> Batch:
    """Return a batch of training images, transformed by ``data.transform``, normalised, and augmented.

    Random numbers come from torch's global generator of the images' device. For a reproducible batch, call this inside
    ``seeded(seed, "step", t)``.

    Args:
        data: the data set; the batch is made on its device.
        indices: ``[batch]``, indices into ``data.train``, such as a slice of `epoch_order`.

    Returns:
        Images ``[batch, channel, height, width]`` in float32, and labels ``[batch]``.
    """
    chosen = replace(data.train, names=None).at(indices)  # looking names up would wait for the indices on a GPU
    images = chosen.images if data.transform is None else _transformed(chosen.images, data.transform)
    return AUGMENTATIONS[data.augment](data.normalise(images)), chosen.labels


def _transformed(images: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Transform each image separately, since a transform draws its random parameters once per call.

    Raises:
        InputError: the transform returns images of another type or size.
    """
    made = [transform(image) for image in images]
    for image in made:
        if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.shape != images.shape[1:]:
            found = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise InputError(
                f"augment must return uint8 {list(images.shape[1:])}, like the image that it takes, not {found}"
            )
    return torch.stack(made)


def eval_batches(data: Data, split: Split, batch_size: int) -> Iterator[Batch]:
    """Iterate over all images of a split in order, normalised. The last batch may be smaller.

    Args:
        data: the data set whose training images define the normalisation; on the device of `split`.
        split: ``data.validation``, ``data.test``, or other images with the same number of channels.
        batch_size: the number of images in a batch, at least 1.

    Returns:
        An iterator over images ``[batch, channel, height, width]`` in float32 and labels ``[batch]``.

    Raises:
        InputError: the batch size is below 1, or the number of channels differs.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, but a batch needs at least 1 image")
    channels = split.images.shape[1]
    if channels != data.in_channels:
        raise InputError(f"the images have {channels} channels, but those of {data.name} have {data.in_channels}")
    pieces = zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)
    return ((data.normalise(images), labels) for images, labels in pieces)
