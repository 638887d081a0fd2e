"""Trainings of two processes, joined by gloo, whose data are sharded. `test_sharded_data` starts this script."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import BatchSampler, DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from bayes_share.inference import MAP, NUTS, DeepEnsemble, fit, predict
from bayes_share.inference.step.ranks import Ranks
from bayes_share.models.model import Model

X = torch.randn(160, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
ALL = TensorDataset(X, Y)


class Batches:
    """An iterable of batches of ten examples, which may be a part for each process, or in an order of its own."""

    def __init__(self, is_sharded: bool, is_shuffled: bool = False) -> None:
        self.is_sharded, self.is_shuffled = is_sharded, is_shuffled
        self.random = torch.Generator().manual_seed(Ranks.here().rank)

    def __len__(self) -> int:
        return 8 if self.is_sharded else 16

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        ranks = Ranks.here()
        order = torch.arange(160)[ranks.rank :: ranks.count] if self.is_sharded else torch.arange(160)
        if self.is_shuffled:  # after the first batch
            order = torch.cat([order[:10], order[10:][torch.randperm(len(order) - 10, generator=self.random)]])
        return iter([(X[rows], Y[rows]) for rows in order.split(10)])


def sharded() -> DistributedSampler:
    return DistributedSampler(ALL, shuffle=False)


def part_of(*tensors: Tensor) -> tuple[Tensor, ...]:
    ranks = Ranks.here()
    return tuple(tensor[ranks.rank :: ranks.count] for tensor in tensors)


def trained(data: Any, validation: Any = None, algorithm: Any = MAP()) -> Any:  # noqa: B008 (frozen)
    history: list[Any] = []
    options = {"epochs": 2, "progress": False, "validation": validation, "report": history.append}
    state = fit(algorithm, lambda: Model(nn.Linear(3, 3)), data, **options)
    return history, predict(algorithm, state, X)


CASES: dict[str, Callable[[], Any]] = {
    "DistributedSampler": lambda: trained(DataLoader(ALL, 10, sampler=sharded())),
    "within a batch sampler": lambda: trained(DataLoader(ALL, batch_sampler=BatchSampler(sharded(), 10, False))),
    "validation by DistributedSampler": lambda: trained((X, Y), DataLoader(ALL, 10, sampler=sharded())),
    "tensors": lambda: trained(part_of(X, Y)),
    "whole networks": lambda: trained(part_of(X, Y), None, DeepEnsemble(of=MAP(), networks=2)),
    "one chain": lambda: trained(part_of(X, Y), None, NUTS(max_tree_depth=1, warmup=0.5, keep=1)),
    "iterable": lambda: trained(Batches(is_sharded=True)),
    "validation tensors": lambda: trained((X, Y), part_of(X, Y)),
    "validation iterable": lambda: trained((X, Y), Batches(is_sharded=True)),
    "validation in an order of its own": lambda: trained((X, Y), Batches(is_sharded=False, is_shuffled=True)),
    "prediction": lambda: predict(MAP(), fit(MAP(), Model(nn.Linear(3, 3)), (X, Y), epochs=1), *part_of(X), ranks=HERE),
    "loaders of all": lambda: trained(DataLoader(ALL, 10, shuffle=True), DataLoader(ALL, 16)),
    "iterables of all": lambda: trained(Batches(is_sharded=False), Batches(is_sharded=False)),
}
HERE = Ranks(0, 1)


def found(name: str) -> Any:
    try:
        return CASES[name]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main(rank: int, count: int, folder: Path) -> None:
    global HERE
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)
    HERE = Ranks.here()
    torch.save({name: found(name) for name in CASES}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
