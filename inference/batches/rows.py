"""The indices of the examples in each batch, for examples in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from bayes_share.data.batches import epoch_order
from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Feeding
from bayes_share.inference.batches.source import LastBatch, check_last_batch
from bayes_share.tensors.seeding import generator


@dataclass(frozen=True)
class Rows:
    """Batches of examples with indices from 0.

    Args:
        num_data: number of examples.
        batch_size: number of examples in a batch, for one member.
        last_batch: handling of a short last batch of an epoch.
        feeding: how the examples of a batch are assigned to members.

    Raises:
        InputError: if there are no examples or the batch size is out of range.
    """

    num_data: int
    batch_size: int
    last_batch: LastBatch = "drop"
    feeding: Feeding = Feeding()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        check_last_batch(self.last_batch)
        if self.num_data < 1:
            raise InputError("there are no examples to train on")
        if not isinstance(self.batch_size, Integral) or not 1 <= self.batch_size <= self.num_data:
            raise InputError(
                f"the batch size must be from 1 to {self.num_data} examples (all training data), not {self.batch_size}"
            )
        object.__setattr__(self, "batch_size", int(self.batch_size))

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return self.num_data // self.batch_size + self._pads

    def epoch(
        self, seed: int, epoch: int, first: int, device: torch.device
    ) -> Iterator[tuple[Int64[Tensor, "row"], Float[Tensor, "row"] | None]]:
        """Yield the indices and weights of each batch. Weights are None if they are all equal.

        Each member gets each example in one batch of an epoch, except for dropped ones.
        """
        members = range(self.feeding.members)
        # Drawn once per epoch; each batch is a slice of it.
        orders = torch.stack([epoch_order(self.num_data, seed, epoch, device, member) for member in members])
        counts = bootstrap_counts(self.num_data, seed, len(members), device) if self.feeding.is_bootstrap else None
        for position in range(first, self.steps_per_epoch):
            rows = orders[:, position * self.batch_size : (position + 1) * self.batch_size]
            rows, weights = padded(rows, self.batch_size) if self._pads else (rows, None)
            if counts is not None:
                counted = counts.gather(1, rows)
                weights = counted if weights is None else counted * weights
            yield rows.flatten(), None if weights is None else weights.flatten()

    def fed(self, feeding: Feeding, are_augmented: bool) -> "Rows":
        """Return the batches with another feeding.

        Args:
            feeding: how the examples of a batch are assigned to members.
            are_augmented: whether examples are augmented randomly.

        Raises:
            InputError: if members should have their own batches but would all get the same one.
        """
        is_own = feeding.members > 1 and not feeding.is_bootstrap
        if is_own and self.batch_size == self.num_data and not are_augmented:
            raise InputError(
                'a batch of all examples is the same for all members: for feed="own" give a smaller batch_size, or use '
                'feed="bootstrap"'
            )
        return replace(self, feeding=feeding)

    @property
    def _pads(self) -> bool:
        return self.last_batch == "pad" and self.num_data % self.batch_size > 0


def whole_order(num_data: int, seed: int) -> Int64[Tensor, "num_data"]:
    """Return the random order of `Source.in_random_order`, on the CPU."""
    return torch.randperm(num_data, generator=generator(seed, "whole"))


def bootstrap_counts(num_data: int, seed: int, members: int, device: torch.device) -> Float[Tensor, "member num_data"]:
    """Return how often each member's bootstrap sample, `num_data` draws with replacement, contains each example.

    The counts depend only on the seed and the member, not on the epoch or the device.
    """
    drawn = (torch.randint(num_data, (num_data,), generator=generator(seed, "bootstrap", m)) for m in range(members))
    return torch.stack([torch.bincount(each, minlength=num_data) for each in drawn]).float().to(device)


def padded(
    rows: Int64[Tensor, "*member few"], size: int
) -> tuple[Int64[Tensor, "*member batch"], Float[Tensor, "*member batch"]]:
    """Fill a batch up to a size by repeating its examples with weight 0; return the rows and their weights.

    >>> padded(torch.tensor([7, 5]), 5)
    (tensor([7, 5, 7, 5, 7]), tensor([1., 1., 0., 0., 0.]))
    """
    count = rows.shape[-1]
    places = torch.arange(size, device=rows.device)
    return rows[..., places % count], (places < count).float().expand(*rows.shape[:-1], size)
