"""Toy examples in every kind of source, with custom datasets and iterables."""

# ruff: noqa: NPY002 (users' datasets draw from the global generator)

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
"""The number of examples and the batch size: five full batches, and two examples in the last one."""

X = torch.arange(COUNT)[:, None] + torch.tensor([0.0, 0.25])
"""Inputs. The integer part of an example's first feature is its index."""

Y = X.sum(1)


class Noisy(Dataset):
    """A map-style dataset that adds noise from torch, numpy and Python."""

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
    """The same, with a method that returns all examples of a batch."""

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        return [self[index] for index in indices]


class Again:
    """An iterable without a length, in a new random order each time."""

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
    """An iterable with its own order and a state dict of its position."""

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
    """An iterable-style dataset."""

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
    "loader of an iterable dataset": (
        lambda: DataLoader(OneByOne(), batch_size=SIZE),
        {"num_data": COUNT, "steps_per_epoch": 6},
    ),
}
"""Data by their kind, with the further arguments of `batches_of`."""

RESUMABLE = ["tensors", "loader", "loader with workers", "stateful"]
"""The kinds that can resume within an epoch."""


def indices_of(x: Tensor) -> list[int]:
    """Return the indices of examples."""
    return x[:, 0].floor().int().tolist()


def line(dropout: float = 0.0) -> Model:
    """Return a small model for `X` and `Y`."""
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
