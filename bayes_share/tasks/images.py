"""The task of image classification."""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bayes_share.data import Data, Split
from bayes_share.data.load import short_name
from bayes_share.errors import InputError, option
from bayes_share.inference.batches.images import Images
from bayes_share.inference.batches.source import LastBatch, Source
from bayes_share.io.terminal import listed, printable
from bayes_share.models.likelihoods import Categorical, Likelihood
from bayes_share.models.networks import build_network
from bayes_share.tasks.contracts import NetworkChoice, NoiseChoice


@dataclass(frozen=True)
class ImageSpec:
    """The `DataSpec` of images.

    Args:
        class_names: the names of the classes.
        in_channels: the number of channels of an image.
        image_size: height and width in pixels.
    """

    class_names: tuple[str, ...]
    in_channels: int
    image_size: tuple[int, int]

    @property
    def example(self) -> Tensor:
        """Two images of zeros, ``[2, channel, height, width]``."""
        return torch.zeros(2, self.in_channels, *self.image_size)

    def network(self, choice: NetworkChoice, noise: NoiseChoice) -> nn.Module:
        """Return a new network, one of `network_names`. The noise is ignored."""
        return build_network(
            choice.name,
            num_classes=len(self.class_names),
            in_channels=self.in_channels,
            image_size=self.image_size,
            norm=choice.norm,
            dropout=choice.dropout,
        )

    def likelihood(self, choice: NoiseChoice) -> Likelihood:
        """Return the categorical likelihood.

        Raises:
            InputError: a noise option is given.
        """
        if choice != NoiseChoice():
            raise InputError(f"{option('noise')} requires real-valued targets, and images have classes: leave it out")
        return Categorical()

    def to_json(self) -> None:
        """Return None: the mean and standard deviation of the pixels are computed from the data again."""
        return


@dataclass(frozen=True, eq=False)
class ImageTask:
    """The `Task` of classifying images.

    Args:
        data: the data that `load_data` returned.
    """

    data: Data

    @property
    def spec(self) -> ImageSpec:
        """The classes, channels and size of the images."""
        return ImageSpec(self.data.class_names, self.data.in_channels, self.data.image_size)

    @property
    def description(self) -> tuple[str, ...]:
        """The number of images in each part, their size, and the classes."""
        data, spec = self.data, self.spec
        parts = {"training": data.train, "validation": data.validation, "test": data.test}
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
        height, width = spec.image_size
        total = sum(len(part) for part in parts.values())
        return (
            f"{printable(short_name(data.name))}: {total:,} images of {height} x {width} pixels in {spec.in_channels} "
            f"channel{'s' * (spec.in_channels > 1)}, {sizes}",
            f"{len(spec.class_names)} classes: {listed(spec.class_names, 100)}",
        )

    @property
    def validation(self) -> Split:
        """The validation part, used for model selection."""
        return self.data.validation

    @property
    def test(self) -> Split:
        """The test part, used only for evaluation."""
        return self.data.test

    @property
    def test_digest(self) -> dict[str, str]:
        """A digest of the test pixels and their shape, the same on every machine."""
        images = self.data.test.inputs
        digest = sha256(repr(tuple(images.shape)).encode())
        digest.update(np.ascontiguousarray(images.numpy(force=True)).data)
        return {"test_images": digest.hexdigest()}

    @property
    def is_augmented(self) -> bool:
        """Whether training images are augmented."""
        return self.data.is_augmented

    def training(self, batch_size: int | None, last_batch: LastBatch) -> Source:
        """Return the source of training batches, augmented if the data ask for it."""
        return Images(self.data, batch_size, last_batch)

    def scored(self, part: Any) -> Source | None:
        """Return the source of validation batches from a part, not augmented, or None if the part is empty."""
        return Images(replace(self.data, validation=part)).validation

    def as_taken(self, inputs: Any) -> Any:
        """Normalise images, on the CPU."""
        return self.data.normalise(inputs.to(self.data.mean.device)).cpu()
