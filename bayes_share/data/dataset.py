"""Labelled images in memory, and the three parts of a data set with what its training part says about the pixels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from bayes_share.data.mapped_images import has_room_for, images_at

_AT_A_TIME = 2**21  # pixels that are counted, each as an int64


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images, one part of a data set.

    Attributes:
        images: ``[image, channel, height, width]``, grey values from 0 to 255; where they are too many for the memory,
            in a mapped file.
        labels: ``[image]``, the class of each image, counted from 0.
        names: of the images, such as those of their files; None where they have none.
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
        """The number of images."""
        return len(self.images)

    def at(self, indices: Int64[Tensor, "chosen"]) -> "Split":
        """The images at ``indices``, in that order.

        Args:
            indices: ``[chosen]``, each from 0 to ``len(self) - 1``; on the CPU or where the images are.
        """
        names = None if self.names is None else tuple(self.names[place] for place in indices.tolist())
        images = images_at(self.images, indices.to(self.images.device))
        return Split(images, self.labels[indices.to(self.labels.device)], names)

    def to(self, device: torch.device | str) -> "Split":
        """The same images on another device, still as uint8; without room there they stay, and batches of them move."""
        images = self.images.to(device) if has_room_for(device, self.images.nbytes) else self.images
        return Split(images, self.labels.to(device), self.names)


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in three parts: one to train on, one to choose with, and one that chooses nothing.

    Attributes:
        name: as it was given to `load_data`.
        train: the training images, the only ones that `mean` and `std` are computed from.
        validation: for early stopping, temperatures and other choices.
        test: for the numbers that are reported.
        class_names: one name per class, in the order of the labels.
        mean: ``[channel]``, the mean of the training pixels on the scale from 0 to 1.
        std: ``[channel]``, their standard deviation on the same scale; 1 where a channel is constant.
        augment: a key of `AUGMENTATIONS`, what happens to training batches once they are normalised.
        transform: what happens to each training image ``[channel, height, width]`` before that, uint8 to uint8 of the
            same size, such as one of torchvision's transforms; None: nothing.
        held_out: test images of classes that were left out of all parts; None where none was.
        averaged_from: height and width of the stored images, where `load_data` averaged them down; else None.
        digest: the same for the same stored images, labels and class names only; empty where `load_data` did not read
            them.
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

    @property
    def is_augmented(self) -> bool:
        """Whether training images are drawn anew each time that they are taken."""
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
        """Bring pixels to the scale on which each channel of the training images has mean 0 and deviation 1.

        Args:
            images: ``[batch, channel, height, width]``, which are moved to the device of the data; they need not come
                from this set.

        Returns:
            ``[batch, channel, height, width]``, float32.
        """
        mean, std = self.mean[:, None, None], self.std[:, None, None]
        return images.to(self.mean.device).to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def to(self, device: torch.device | str) -> "Data":
        """The same data on another device; images stay uint8, a quarter of the memory of float32."""
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
    """Mean and standard deviation of each channel, exact, without a copy of all images in floating point.

    Args:
        images: ``[image, channel, height, width]``.

    Returns:
        mean and std, ``[channel]`` each, on the scale from 0 to 1; a constant channel has std 1, so that dividing by
        it is harmless.
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
