"""Images in memory, augmented on the device."""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayes_share.data import Data, eval_batches, train_batch
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.batches.rows import Rows, whole_order
from bayes_share.inference.batches.source import LastBatch, TargetCheck
from bayes_share.inference.execution import Execution
from bayes_share.inference.stable_text import without_addresses
from bayes_share.tensors.trees import digest

_VALIDATION_BATCH = 500


class Images:
    """The training images of a data set. Batches of uint8 images are gathered, normalised and augmented on the device.

    A `Source`; all its images are moved to the device.

    Args:
        data: the data from `load_data`. Its validation images are the validation source.
        batch_size: number of images in a step. None: all training images.
        last_batch: handling of a short last batch of an epoch.

    Raises:
        InputError: if the batch size exceeds the number of training images.
    """

    goes_on_within_epochs = True

    def __init__(self, data: Data, batch_size: int | None = None, last_batch: LastBatch = "drop") -> None:
        self.data = data
        self._rows = Rows(len(data.train), len(data.train) if batch_size is None else batch_size, last_batch)
        self._targets = data.train.labels
        self._execution = Execution()
        self._dtype = torch.float32

    @property
    def num_data(self) -> int:
        """The number of training images."""
        return self._rows.num_data

    @property
    def batch_size(self) -> int:
        """The number of images in a step."""
        return self._rows.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return self._rows.steps_per_epoch

    @property
    def validation(self) -> "Images | None":
        """The validation images, or None if there are none."""
        held_out = self.data.validation
        return (
            Images(replace(self.data, train=held_out), min(_VALIDATION_BATCH, len(held_out))) if len(held_out) else None
        )

    def on(self, execution: Execution, dtype: torch.dtype) -> "Images":
        """Return the source with all images on the device. Images are normalised in float32 and then cast."""
        other = copy(self)
        other.data = self.data.to(execution.torch_device)
        other._targets = self._targets.to(execution.torch_device)
        other._execution, other._dtype = execution, dtype
        return other

    def fed(self, feeding: Feeding) -> "Images":
        """Return the source with the given feeding."""
        other = copy(self)
        other._rows = self._rows.fed(feeding, self.data.is_augmented)
        return other

    def first(self, count: int) -> Batch:
        """Return the first training images."""
        return Batch(self.inputs(self.data.train.images[:count]), self._targets[:count])

    def checked(self, check: TargetCheck) -> "Images":
        """Return the source with all labels prepared for the likelihood."""
        other = copy(self)
        other._targets = check.whole(self._targets)
        return other

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """Yield augmented batches in the order of the epoch."""
        for rows, weights in self._rows.epoch(seed, epoch, first, self._targets.device):
            x, _ = train_batch(self.data, rows)
            yield Batch(self._placed(x), self._targets[rows], weights)

    def in_order(self) -> Iterable[Batch]:
        """Return all training images in order, without augmentation."""
        return _InOrder(self)

    def in_random_order(self, seed: int) -> Iterable[Batch]:
        """Return all training images in a random order, without augmentation."""
        return _InRandomOrder(self, seed)

    def inputs(self, x: Tensor) -> Tensor:
        """Normalise uint8 images ``[image, channel, height, width]`` and move them to the device."""
        return self._placed(self.data.normalise(x.to(self._targets.device)))

    def identity(self) -> dict[str, Any]:
        """Return a digest of the images and labels, and how they are divided into batches."""
        return {
            "data": digest(self.data.train.images, self.data.train.labels),
            "augment": self.data.augment,
            **({} if self.data.transform is None else {"transform": without_addresses(repr(self.data.transform))}),
            "num_data": self.num_data,
            "batch_size": self.batch_size,
            "last_batch": self._rows.last_batch,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing."""

    def _placed(self, x: Tensor) -> Tensor:
        placed: Tensor = self._execution.place_inputs(x.to(self._dtype))
        return placed


@dataclass(frozen=True)
class _InOrder:
    """The batches of `Images.in_order`, each computed on demand."""

    source: Images

    def __iter__(self) -> Iterator[Batch]:
        source = self.source
        batches = eval_batches(source.data, source.data.train, source.batch_size)
        for (x, _), y in zip(batches, source._targets.split(source.batch_size), strict=True):
            yield Batch(source._placed(x), y)


@dataclass(frozen=True)
class _InRandomOrder:
    """The batches of `Images.in_random_order`, each computed on demand."""

    source: Images
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        source = self.source
        for which in whole_order(source.num_data, self.seed).to(source._targets.device).split(source.batch_size):
            yield Batch(source.inputs(source.data.train.at(which).images), source._targets[which])
