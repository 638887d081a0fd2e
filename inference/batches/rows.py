"""Which examples in memory make up each batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayes_share.data.batches import epoch_order
from bayes_share.errors import InputError
from bayes_share.inference.batches.source import LastBatch, check_last_batch


@dataclass(frozen=True)
class Rows:
    """The batches of examples that are numbered from 0.

    Args:
        num_data: how many examples there are.
        batch_size: in a batch.
        last_batch: what becomes of what remains of an epoch.

    Raises:
        InputError: no examples, or a batch that cannot be.
    """

    num_data: int
    batch_size: int
    last_batch: LastBatch = "drop"

    def __post_init__(self) -> None:
        check_last_batch(self.last_batch)
        if self.num_data < 1:
            raise InputError("there are no examples to train on")
        if not isinstance(self.batch_size, Integral) or not 1 <= self.batch_size <= self.num_data:
            raise InputError(
                f"a batch has from 1 to {self.num_data} examples (all training data), not {self.batch_size}"
            )
        object.__setattr__(self, "batch_size", int(self.batch_size))

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.num_data // self.batch_size + self._pads

    def epoch(
        self, seed: int, epoch: int, first: int, device: torch.device
    ) -> Iterator[tuple[Int64[Tensor, "batch"], Float[Tensor, "batch"] | None]]:
        """The numbers of each batch's examples and their weights, which are None where none is padded.

        Each example is in one batch of an epoch, but for those that are dropped.
        """
        order = epoch_order(self.num_data, seed, epoch, device)  # once, of which each batch is a piece
        ones = torch.ones(self.batch_size, device=device) if self._pads else None
        for position in range(first, self.steps_per_epoch):
            rows = order[position * self.batch_size : (position + 1) * self.batch_size]
            yield (rows, ones) if len(rows) == self.batch_size else padded(rows, self.batch_size)

    @property
    def _pads(self) -> bool:
        return self.last_batch == "pad" and self.num_data % self.batch_size > 0


def padded(rows: Int64[Tensor, "few"], size: int) -> tuple[Int64[Tensor, "batch"], Float[Tensor, "batch"]]:
    """A batch of this size of fewer examples, and its weights: they are repeated with weight 0.

    >>> padded(torch.tensor([7, 5]), 5)
    (tensor([7, 5, 7, 5, 7]), tensor([1., 1., 0., 0., 0.]))
    """
    places = torch.arange(size, device=rows.device)
    return rows[places % len(rows)], (places < len(rows)).float()
