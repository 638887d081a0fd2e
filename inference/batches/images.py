"""Images in memory, on the device, augmented there."""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayes_share.data import Data, eval_batches, train_batch
from bayes_share.inference.algorithm import Batch, Feeding
from bayes_share.inference.batches.rows import Rows
from bayes_share.inference.batches.source import LastBatch, TargetCheck
from bayes_share.inference.execution import Execution
from bayes_share.tensors.trees import digest

_AT_A_TIME = 500  # images that are validated on


class Images:
    """The training images of a data set: a batch is a gather of uint8, normalised and augmented on the device.

    A `Source`, whose `data` are moved to the device as a whole.

    Args:
        data: as `load_data` gives it; its validation images are what is validated on.
        batch_size: images in a step; None: all training images.
        last_batch: what becomes of what remains of an epoch.

    Raises:
        InputError: a batch larger than the training data.
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
        """Training images."""
        return self._rows.num_data

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return self._rows.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self._rows.steps_per_epoch

    @property
    def validation(self) -> "Images | None":
        """The validation images; None where there are none."""
        held_out = self.data.validation
        return Images(replace(self.data, train=held_out), min(_AT_A_TIME, len(held_out))) if len(held_out) else None

    def on(self, execution: Execution, dtype: torch.dtype) -> "Images":
        """All images on the device, normalised in float32 and then cast."""
        other = copy(self)
        other.data = self.data.to(execution.torch_device)
        other._targets = self._targets.to(execution.torch_device)
        other._execution, other._dtype = execution, dtype
        return other

    def fed(self, feeding: Feeding) -> "Images":
        """The same images, in an order for each that `feeding` says."""
        other = copy(self)
        other._rows = self._rows.fed(feeding, self.data.is_augmented)
        return other

    def first(self, count: int) -> Batch:
        """The first training images."""
        return Batch(self.inputs(self.data.train.images[:count]), self._targets[:count])

    def checked(self, check: TargetCheck) -> "Images":
        """The same images, with all labels as the likelihood takes them."""
        other = copy(self)
        other._targets = check.whole(self._targets)
        return other

    def epoch(self, seed: int, epoch: int, first: int) -> Iterator[Batch]:
        """Augmented batches, in the order of the epoch."""
        for rows, weights in self._rows.epoch(seed, epoch, first, self._targets.device):
            x, _ = train_batch(self.data, rows)
            yield Batch(self._placed(x), self._targets[rows], weights)

    def in_order(self) -> Iterable[Batch]:
        """All training images as they are."""
        return _InOrder(self)

    def inputs(self, x: Tensor) -> Tensor:
        """Images ``[image, channel, height, width]``, uint8, from wherever: normalised as the data are."""
        return self._placed(self.data.normalise(x.to(self._targets.device)))

    def identity(self) -> dict[str, Any]:
        """A digest of the images and labels, and how they are cut into batches."""
        return {
            "data": digest(self.data.train.images, self.data.train.labels),
            "augment": self.data.augment,
            **({} if self.data.transform is None else {"transform": repr(self.data.transform)}),
            "num_data": self.num_data,
            "batch_size": self.batch_size,
            "last_batch": self._rows.last_batch,
        }

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is taken over."""

    def _placed(self, x: Tensor) -> Tensor:
        placed: Tensor = self._execution.place_inputs(x.to(self._dtype))
        return placed


@dataclass(frozen=True)
class _InOrder:
    """The batches of `Images.in_order`, each made when it is asked for."""

    source: Images

    def __iter__(self) -> Iterator[Batch]:
        source = self.source
        batches = eval_batches(source.data, source.data.train, source.batch_size)
        for (x, _), y in zip(batches, source._targets.split(source.batch_size), strict=True):
            yield Batch(source._placed(x), y)
