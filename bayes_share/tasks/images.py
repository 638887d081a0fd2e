"""Images with a class each."""

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
    """What images are like.

    Args:
        class_names: one for each class.
        in_channels: of an image.
        image_size: height and width.
    """

    class_names: tuple[str, ...]
    in_channels: int
    image_size: tuple[int, int]

    @property
    def example(self) -> Tensor:
        """``[2, channel, height, width]``."""
        return torch.zeros(2, self.in_channels, *self.image_size)

    def network(self, choice: NetworkChoice, noise: NoiseChoice) -> nn.Module:
        """One of `network_names`."""
        return build_network(
            choice.name,
            num_classes=len(self.class_names),
            in_channels=self.in_channels,
            image_size=self.image_size,
            norm=choice.norm,
            dropout=choice.dropout,
        )

    def likelihood(self, choice: NoiseChoice) -> Likelihood:
        """Categorical.

        Raises:
            InputError: options of noise.
        """
        if choice != NoiseChoice():
            raise InputError(f"{option('noise')} requires real-valued targets, and images have classes: leave it out")
        return Categorical()

    def to_json(self) -> None:
        """Nothing: the moments of pixels are read from the data."""
        return


@dataclass(frozen=True, eq=False)
class ImageTask:
    """Images in three parts. A `Task`.

    Args:
        data: as `load_data` gives them.
    """

    data: Data

    @property
    def spec(self) -> ImageSpec:
        """Classes, channels and size."""
        return ImageSpec(self.data.class_names, self.data.in_channels, self.data.image_size)

    @property
    def description(self) -> tuple[str, ...]:
        """Images and their division, and classes."""
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
        """To choose with."""
        return self.data.validation

    @property
    def test(self) -> Split:
        """That chooses nothing."""
        return self.data.test

    @property
    def test_digest(self) -> dict[str, str]:
        """Of pixels and shape, the same on every machine."""
        images = self.data.test.inputs
        digest = sha256(repr(tuple(images.shape)).encode())
        digest.update(np.ascontiguousarray(images.numpy(force=True)).data)
        return {"test_images": digest.hexdigest()}

    @property
    def is_augmented(self) -> bool:
        """Whether images are shifted, mirrored and the like."""
        return self.data.is_augmented

    def training(self, batch_size: int | None, last_batch: LastBatch) -> Source:
        """Augmented as the data say."""
        return Images(self.data, batch_size, last_batch)

    def scored(self, part: Any) -> Source | None:
        """Not augmented."""
        return Images(replace(self.data, validation=part)).validation

    def as_taken(self, inputs: Any) -> Any:
        """Normalised."""
        return self.data.normalise(inputs.to(self.data.mean.device)).cpu()
