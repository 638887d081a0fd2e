"""Examples in every kind of source, and iterables of one's own."""

# ruff: noqa: NPY002 (the global generator, which people's datasets draw from)

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from bayes_share.inference import Training
from bayes_share.inference.batches.source import Source
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model

COUNT, SIZE = 22, 4
"""Examples and how many are in a batch: five full ones, and two that remain."""

X = torch.arange(COUNT)[:, None] + torch.tensor([0.0, 0.25])
"""An example is known by the whole part of its first number."""

Y = X.sum(1)


class Noisy(Dataset):
    """A dataset by index that adds what it draws from torch, numpy and Python."""

    def __init__(self, count: int = COUNT) -> None:
        self.count = count
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.asked.append(index)
        noise = torch.rand(()) + np.random.rand() + random.random()
        x = torch.tensor([float(index), index + 0.25]) + noise / 10
        return x, x.sum()


class Together(Noisy):
    """The same, with a method for all examples of a batch."""

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        return [self[index] for index in indices]


class Again:
    """An iterable that begins anew, without a length."""

    def __init__(self, count: int = COUNT) -> None:
        self.count = count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.from_numpy(np.random.permutation(self.count))
        for rows in order.split(SIZE):
            yield X[rows] + torch.rand(()) / 10, Y[rows]


class WithLength(Again):
    def __len__(self) -> int:
        return -(-self.count // SIZE)


class Stateful:
    """An iterable that knows where it is, in an order of its own."""

    def __init__(self, count: int = COUNT) -> None:
        self.count, self.epoch, self.place = count, 0, 0

    def __len__(self) -> int:
        return -(-self.count // SIZE)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.epoch))
        while self.place < self.count:
            rows = order[self.place : self.place + SIZE]
            self.place += SIZE
            yield X[rows], Y[rows]
        self.epoch, self.place = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.place = state["epoch"], state["place"]


class OneByOne(IterableDataset):
    """Examples in a row, for a loader."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(X + torch.rand(()) / 10, Y, strict=True))


def loader(dataset: Dataset | None = None, **options: Any) -> DataLoader:
    return DataLoader(Noisy() if dataset is None else dataset, **{"batch_size": SIZE, "shuffle": True, **options})


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "tensors": (lambda: (X, Y), {"batch_size": SIZE}),
    "loader": (loader, {}),
    "loader with workers": (lambda: loader(num_workers=2), {}),
    "stateful": (Stateful, {}),
    "iterable": (Again, {"num_data": COUNT, "steps_per_epoch": 6}),
    "iterable with a length": (WithLength, {}),
    "loader of a row": (
        lambda: DataLoader(OneByOne(), batch_size=SIZE),
        {"num_data": COUNT, "steps_per_epoch": 6},
    ),
}
"""What a user hands in, by its kind, and what else `batches_of` is told."""

GOES_ON = ["tensors", "loader", "loader with workers", "stateful"]
"""The kinds that go on within epochs."""


def names(x: Tensor) -> list[int]:
    """Which examples these are."""
    return x[:, 0].floor().int().tolist()


def line(dropout: float = 0.0) -> Model:
    """A small network for `X` and `Y`."""
    return Model(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)), Gaussian(10.0))


def on_cpu(source: Source) -> Source:
    from bayes_share.inference import Execution
    from bayes_share.inference.batches.source import TargetCheck

    return source.on(Execution("cpu"), torch.float32).checked(TargetCheck(lambda y: y, lambda y: y))


def trained(training: Training, steps: int | None = None) -> Training:
    for _ in training.steps():
        if training.step == steps:
            break
    return training
