"""`DataLoader` of a map-style dataset: which options are kept, and what its order and random draws depend on."""

# ruff: noqa: NPY002 (users' datasets draw from the global generator)

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)
from toy_data import COUNT, SIZE, Noisy, Together, X, Y, indices_of, loader, on_cpu

from bayes_share.errors import InputError
from bayes_share.inference import batches_of
from bayes_share.inference.algorithm import Batch
from bayes_share.tensors.seeding import seeded


def epoch(given: DataLoader, number: int = 0, first: int = 0, **options: Any) -> list[Batch]:
    with seeded("step"):
        return list(on_cpu(batches_of(given, **options)).epoch(0, number, first))


def inputs(batches: list[Batch]) -> Tensor:
    return torch.cat([batch.inputs for batch in batches])


def mixed_up(examples: list[Any]) -> Any:
    """A collate function that draws random numbers."""
    x, y = default_collate(examples)
    share = np.random.beta(2, 2)
    return x * share + x.flip(0) * (1 - share), y


class Drawn(Sampler):
    """A custom sampler that draws from numpy's global generator."""

    def __iter__(self) -> Any:
        for index in range(COUNT):
            yield int(np.random.randint(index, COUNT))

    def __len__(self) -> int:
        return COUNT


LOADERS: dict[str, Callable[..., DataLoader]] = {
    "shuffled": loader,
    "in order": lambda **options: loader(shuffle=False, **options),
    "a generator": lambda **options: loader(generator=torch.Generator().manual_seed(3), **options),
    "a batch at a time": lambda **options: loader(Together(), **options),
    "a collate that draws": lambda **options: loader(collate_fn=mixed_up, **options),
    "a subset": lambda **options: loader(shuffle=False, sampler=SubsetRandomSampler(range(3, 20)), **options),
    "weighted": lambda **options: loader(
        shuffle=False, sampler=WeightedRandomSampler(torch.arange(COUNT) + 1.0, COUNT), **options
    ),
    "distributed": lambda **options: loader(shuffle=False, sampler=DistributedSampler(Noisy(), 2, 1), **options),
    "own sampler": lambda **options: loader(shuffle=False, sampler=Drawn(), **options),
    "own batch sampler": lambda **options: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(range(COUNT)), 3, drop_last=False), **options
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_an_epoch_is_the_same_with_workers_and_from_any_first_batch(name: str) -> None:
    expected = inputs(epoch(LOADERS[name](), 2))
    assert torch.equal(inputs(epoch(LOADERS[name](num_workers=2), 2)), expected)
    assert torch.equal(inputs(epoch(LOADERS[name](), 2, first=1)), expected[3 if name == "own batch sampler" else 4 :])
    if name != "in order":
        assert indices_of(inputs(epoch(LOADERS[name](), 3))) != indices_of(expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_persistent_workers_give_the_same_batches(workers: int) -> None:
    options = {"num_workers": workers, "persistent_workers": True, "prefetch_factor": 4}
    source, alone = on_cpu(batches_of(loader(**options))), on_cpu(batches_of(loader()))
    with seeded("step"):
        next(source.epoch(0, 0, 0))  # an epoch that is abandoned
        for number, first in ((0, 2), (1, 0), (2, 4)):
            found, expected = (inputs(list(each.epoch(0, number, first))) for each in (source, alone))
            assert torch.equal(found, expected)


def test_random_draws_in_one_batch_do_not_affect_the_next() -> None:
    class Greedy(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            if len(self.asked) == 3 * SIZE:  # counting the batch that is checked first
                torch.rand(7), np.random.rand(3)
            return super().__getitem__(index)

    one, other = (inputs(epoch(loader(dataset), 1)) for dataset in (Noisy(), Greedy()))
    assert torch.equal(one[: 2 * SIZE], other[: 2 * SIZE])
    assert torch.equal(one[3 * SIZE :], other[3 * SIZE :])
    assert not torch.equal(one[2 * SIZE : 3 * SIZE], other[2 * SIZE : 3 * SIZE])


def test_skipped_batches_are_not_loaded() -> None:
    dataset = Noisy()
    source = on_cpu(batches_of(loader(dataset)))
    dataset.asked.clear()
    with seeded("step"):
        batches = list(source.epoch(0, 0, 3))
    assert len(dataset.asked) == 2 * SIZE
    assert dataset.asked == indices_of(inputs(batches))


def test_the_users_loader_is_not_changed() -> None:
    generator = torch.Generator().manual_seed(3)
    given = loader(generator=generator)
    before, state = dict(vars(given)), generator.get_state()
    epoch(given)
    assert dict(vars(given)) == before
    assert torch.equal(generator.get_state(), state)
    assert len(list(given)) == 6


def test_drop_last_collate_fn_and_worker_init_fn_are_kept(tmp_path: Any) -> None:
    def collate(examples: list[Any]) -> Any:
        x, y = default_collate(examples)
        return {"x": x}, y

    def start(worker: int) -> None:
        (tmp_path / str(worker)).touch()

    batches = epoch(loader(drop_last=True, collate_fn=collate), last_batch="pad")
    assert len(batches) == 5
    assert all(batch.weights.min() == 1 and batch.inputs["x"].shape == (SIZE, 2) for batch in batches)
    epoch(loader(num_workers=2, worker_init_fn=start))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


class Opened(Noisy):
    """A dataset that is opened in its workers and cannot be read elsewhere."""

    where = 0

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.where != os.getpid():
            raise OSError("the file of another process")
        return super().__getitem__(index)


def opens(worker: int) -> None:
    get_worker_info().dataset.where = os.getpid()


def test_a_dataset_may_be_opened_in_its_workers() -> None:
    batches = epoch(loader(Opened(), num_workers=2, worker_init_fn=opens), 1)
    assert torch.equal(inputs(batches), inputs(epoch(loader(), 1)))


class InBatches(Dataset):
    """A dataset that returns a batch for a list of indices, as in torch's documentation of bulk loading."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        return X[rows] + torch.rand(()), Y[rows]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_may_return_whole_batches(workers: int) -> None:
    sampler = BatchSampler(RandomSampler(range(COUNT)), SIZE, drop_last=True)
    given = DataLoader(InBatches(), batch_size=None, sampler=sampler, num_workers=workers)
    batches = epoch(given, num_data=COUNT)
    assert [len(batch.targets) for batch in batches] == [SIZE] * 5
    assert torch.equal(inputs(batches[2:]), inputs(epoch(given, first=2, num_data=COUNT)))


def test_batches_of_a_custom_batch_sampler_keep_their_sizes() -> None:
    given = DataLoader(TensorDataset(X, Y), batch_sampler=[[0, 1, 2, 3], [4, 5], [6]])
    assert [len(batch.targets) for batch in epoch(given)] == [4, 2, 1]
    with pytest.raises(InputError, match="batches of varying sizes are not padded"):
        batches_of(given, last_batch="pad")


def test_set_epoch_is_called_on_the_sampler() -> None:
    sampler = DistributedSampler(Noisy(), 2, 0)
    given = loader(shuffle=False, sampler=sampler)
    one, two = (indices_of(inputs(epoch(given, number))) for number in (0, 1))
    assert one != two
    sampler.set_epoch(1)
    assert two == list(sampler)[: len(two)]
