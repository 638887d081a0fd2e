"""Labelled images, and data sets of three parts with the pixel statistics of the training part."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from bayes_share.data.mapped_images import has_room_for, images_at
from bayes_share.errors import InputError

_AT_A_TIME = 2**21  # pixels counted at once, each as an int64


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images, one part of a data set.

    Attributes:
        images: ``[image, channel, height, width]``, values from 0 to 255; in a memory-mapped file if too large for
            memory.
        labels: ``[image]``, the class of each image, counted from 0.
        names: the names of the images, such as their file names, or None.
    """

    images: UInt8[Tensor, "image channel height width"]
    labels: Int64[Tensor, "image"]
    names: tuple[str, ...] | None = None

    @property
    def inputs(self) -> UInt8[Tensor, "image channel height width"]:
        """The images."""
        return self.images

    @property
    def targets(self) -> Int64[Tensor, "image"]:
        """The labels."""
        return self.labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __repr__(self) -> str:
        """Describe the split in one line."""
        return f"Split({len(self):,} images {list(self.images.shape[1:])})"

    def at(self, indices: Int64[Tensor, "chosen"]) -> "Split":
        """Return the images at ``indices``, in that order.

        Args:
            indices: ``[chosen]``, each from 0 to ``len(self) - 1``; on the CPU or the images' device.
        """
        names = None if self.names is None else tuple(self.names[place] for place in indices.tolist())
        images = images_at(self.images, indices.to(self.images.device))
        return Split(images, self.labels[indices.to(self.labels.device)], names)

    def to(self, device: torch.device | str) -> "Split":
        """Move the split to a device, as uint8. Images that do not fit there stay, and are moved batch by batch."""
        images = self.images.to(device) if has_room_for(device, self.images.nbytes) else self.images
        return Split(images, self.labels.to(device), self.names)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in three parts: training, validation and test.

    Attributes:
        name: the name that was given to `load_data`.
        train: the training images; `mean` and `std` are computed from them alone.
        validation: the images for early stopping, temperature scaling and other choices.
        test: the images for reported results.
        class_names: one name per class, in the order of the labels.
        mean: ``[channel]``, the mean of the training pixels, scaled to 0 to 1.
        std: ``[channel]``, their standard deviation on the same scale; 1 for a constant channel.
        augment: the augmentation of normalised training batches, a key of `AUGMENTATIONS`.
        transform: applied to each training image ``[channel, height, width]`` before normalisation, such as a
            torchvision transform; maps uint8 to uint8 of the same size. None: no transform.
        held_out: test images of the held-out classes, or None.
        averaged_from: height and width of the stored images if `load_data` averaged them down, else None.
        digest: identifies the stored images, labels and class names; empty if `load_data` did not read them.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    mean: Float32[Tensor, "channel"]
    std: Float32[Tensor, "channel"]
    augment: str
    transform: Callable[[Tensor], Tensor] | None = None
    held_out: UInt8[Tensor, "image channel height width"] | None = None
    digest: str = ""
    averaged_from: tuple[int, int] | None = None

    def __repr__(self) -> str:
        """Describe the data in one line."""
        parts = f"{len(self.train):,} training, {len(self.validation):,} validation, {len(self.test):,} test"
        shape = list(self.train.images.shape[1:])
        return f"Data({self.name!r}: {parts} images {shape}, {self.num_classes} classes)"

    @property
    def is_augmented(self) -> bool:
        """Whether training images are randomly changed each time they are used."""
        return self.augment != "none" or self.transform is not None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """The number of channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of an image, in pixels."""
        height, width = self.train.images.shape[2:]
        return height, width

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of an image as it is stored, in pixels."""
        return self.image_size if self.averaged_from is None else self.averaged_from

    def normalise(
        self, images: UInt8[Tensor, "batch channel height width"]
    ) -> Float32[Tensor, "batch channel height width"]:
        """Normalise pixels by the mean and standard deviation of each channel of the training images.

        Args:
            images: ``[batch, channel, height, width]``, uint8; moved to the device of the data. They may come from
                another data set.

        Returns:
            ``[batch, channel, height, width]``, float32.

        Raises:
            InputError: if the images are not uint8, because the range of their pixels is then unknown.
        """
        if images.dtype != torch.uint8:
            dtype = str(images.dtype).removeprefix("torch.")
            raise InputError(
                f"the images must be uint8, with pixels from 0 to 255, and are {dtype}: convert pixels from 0 to 1 by "
                "(255 * images).round().to(torch.uint8)"
            )
        mean, std = self.mean[:, None, None], self.std[:, None, None]
        return images.to(self.mean.device).to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def to(self, device: torch.device | str) -> "Data":
        """Move the data to a device. Images stay uint8, a quarter of the memory of float32."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
            mean=self.mean.to(device),
            std=self.std.to(device),
            held_out=None if self.held_out is None else self.held_out.to(device),
        )


def pixel_moments(
    images: UInt8[Tensor, "image channel height width"],
) -> tuple[Float32[Tensor, "channel"], Float32[Tensor, "channel"]]:
    """Compute the exact mean and standard deviation of each channel from counts, without converting images to float.

    Args:
        images: ``[image, channel, height, width]``.

    Returns:
        Mean and standard deviation, ``[channel]`` each, of values scaled to 0 to 1. The standard deviation of a
        constant channel is set to 1, so that dividing by it is safe.
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in images.split(max(1, _AT_A_TIME // images[:1].numel())):
        counts += torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in part.unbind(1)]).cpu()
    weights = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = weights @ values
    std = (weights * (values - mean[:, None]).square()).sum(1).sqrt()
    constant = (counts > 0).sum(1) == 1
    return mean.float(), std.masked_fill(constant, 1.0).float()
