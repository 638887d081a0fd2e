"""Batches as tensor operations on the device of the images: no worker processes, nothing to wait for."""

from collections.abc import Callable, Iterator

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
    """The order in which an epoch visits the training data, from the key ``(seed, "epoch", epoch)``.

    Args:
        num_data: how many examples there are.
        seed: the seed of the run.
        epoch: counted from 0.
        device: where it is drawn; another kind of device has another order.
        member: whose order it is, where each has one: those after the first have their number in the key.

    Returns:
        ``[num_data]``, each index once, on the device.
    """
    key = (seed, "epoch", epoch, member) if member else (seed, "epoch", epoch)
    return torch.randperm(num_data, generator=generator(*key, device=device), device=device)


def train_batch(data: Data, indices: Int64[Tensor, "batch"]) -> Batch:
    """Training images, normalised and then augmented as ``data.augment`` says.

    Draws from torch's global generator of the images' device: call it inside ``seeded(seed, "step", t)`` to have the
    same batch again.

    Args:
        data: the data set; the batch is made on its device.
        indices: ``[batch]`` into ``data.train``, a piece of `epoch_order`.

    Returns:
        images ``[batch, channel, height, width]`` in float32 and labels ``[batch]``.
    """
    chosen = data.train.at(indices)
    images = chosen.images if data.transform is None else _transformed(chosen.images, data.transform)
    return AUGMENTATIONS[data.augment](data.normalise(images)), chosen.labels


def _transformed(images: Tensor, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Each image on its own, as transforms of one image draw.

    Raises:
        InputError: images of another type or size come out.
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
    """All images of a split in their order, normalised; the last batch may be smaller.

    Args:
        data: whose training images the normalisation comes from; on the device of `split`.
        split: ``data.validation``, ``data.test``, or images from elsewhere with as many channels.
        batch_size: how many images at a time, at least 1.

    Returns:
        an iterator of images ``[batch, channel, height, width]`` in float32 and labels ``[batch]``.

    Raises:
        InputError: for a batch size below 1, or another number of channels.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, but a batch needs at least 1 image")
    channels = split.images.shape[1]
    if channels != data.in_channels:
        raise InputError(f"the images have {channels} channels, but those of {data.name} have {data.in_channels}")
    pieces = zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True)
    return ((data.normalise(images), labels) for images, labels in pieces)
