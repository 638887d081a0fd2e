"""Steps of several processes: each computes a part of the batch, and the gradients are averaged between the halves."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.utils._pytree import tree_map

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, GradientMethod, Inference, StepInfo
from bayes_share.inference.step.drivers import after_step, step, trainings
from bayes_share.tensors.seeding import seeded


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, which `torch.distributed` has joined.

    Args:
        rank: the number of this one, from 0.
        count: how many there are.
    """

    rank: int
    count: int

    @classmethod
    def here(cls) -> "Ranks":
        """Those of the default process group; one alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(0, 1)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            dist.barrier()

    def first_says(self, word: bool) -> bool:
        """What the first process says, in all of them; its own word counts in no other one."""
        if self.count == 1:
            return word
        told = torch.tensor([float(word)], device=_of_messages())
        dist.broadcast(told, 0)
        return bool(told.item())

    def any_says(self, word: bool) -> bool:
        """Whether one of the processes says so."""
        if self.count == 1:
            return word
        told = torch.tensor([float(word)], device=_of_messages())
        dist.all_reduce(told)
        return bool(told.item())


class OfRanks:
    """Each process takes its part of every batch. A `Driver`.

    All make the whole batch, in the order and with the augmentation of one process, and compute a part of it: of each
    member's examples, where members have their own. What is drawn for a gradient, such as dropout or the noise of
    `IVON`, is each process's own, so that processes act as further draws; what is drawn for an update is the same in
    all, and so is what the update makes of the mean gradient. The statistics of batch norms are each process's own in a
    step, and averaged after it. So the states stay the same. A transition of a chain is made by every process.

    Args:
        ranks: of this process.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._is_same = False

    def take(self, algorithm: Inference[Any], state: Any, batch: Batch, steps: int) -> StepInfo:
        """Take a step together with the other processes.

        Raises:
            InputError: a batch that does not divide among them.
        """
        if not self._is_same:
            self._broadcast(_tensors(algorithm, state))
            self._is_same = True
        info = step(algorithm, state, batch, gradient=self._gradient)
        self._average([buffer for buffer in _buffers(algorithm, state) if buffer.is_floating_point()])
        after_step(algorithm, state, steps + 1)
        return info

    def forget(self) -> None:
        """See to it again that all begin with the same numbers."""
        self._is_same = False

    def _gradient(self, method: GradientMethod[Any], state: Any, batch: Batch) -> StepInfo:
        """The mean gradient, and the mean of what the processes report."""
        part = part_of(batch, self._ranks, max(1, method.feeding(state).parts))
        key = int(torch.randint(2**62, ()))  # the same in all, as the generators are
        with seeded(key, "rank", self._ranks.rank):
            info = method.gradient(state, part)
        self._average(method.gradients(state))
        names = [field.name for field in fields(info)]
        figures = torch.stack([getattr(info, name).double() for name in names])
        self._average([figures])
        return StepInfo(**dict(zip(names, (value.to(info.loss) for value in figures), strict=True)))

    def _average(self, tensors: Sequence[Tensor]) -> None:
        """Put the means over all processes in the place of tensors, in one message for each dtype."""
        for dtype in {tensor.dtype for tensor in tensors}:
            own = [tensor for tensor in tensors if tensor.dtype == dtype]
            joined = torch.cat([tensor.detach().flatten() for tensor in own])
            dist.all_reduce(joined)
            joined /= self._ranks.count
            for tensor, mean in zip(own, joined.split([tensor.numel() for tensor in own]), strict=True):
                tensor.detach().copy_(mean.view(tensor.shape))

    def _broadcast(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)


def part_of(batch: Batch, ranks: Ranks, parts: int = 1) -> Batch:
    """What a process computes of a batch.

    Args:
        batch: whole.
        ranks: of the process.
        parts: of the batch, one after the other, of each of which it has a part: those of members.

    Raises:
        InputError: a part does not divide among the processes.

    >>> part_of(Batch(torch.arange(8), torch.arange(8)), Ranks(1, 2), parts=2).inputs
    tensor([2, 3, 6, 7])
    """
    size = len(batch.targets)
    if size % (parts * ranks.count):
        of = f"{parts} members and {ranks.count} processes" if parts > 1 else f"{ranks.count} processes"
        raise InputError(f"a batch of {size} examples does not divide among {of}: give a batch size that does")

    def chosen(tensor: Tensor) -> Tensor:
        by_rank = tensor.unflatten(0, (parts, ranks.count, -1))
        return by_rank[:, ranks.rank].flatten(0, 1)

    inputs, targets, weights, _ = tree_map(
        lambda leaf: chosen(leaf) if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size else leaf,
        tuple(batch),
    )
    if batch.counted is None:
        return Batch(inputs, targets)
    # The mean over processes is then the sum over all divided by that of all counts.
    share = batch.counted.sum() / size
    return Batch(inputs, targets, weights, share.expand(len(targets)))


@contextmanager
def joined_by_torchrun(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` has started, if it did; on a GPU each takes its own.

    Args:
        device: that the training is for.

    Yields:
        The processes; one alone, where ``torchrun`` has started none or one, or where they are joined already.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ or dist.is_initialized():
        yield Ranks.here()
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks.here()
    finally:
        dist.destroy_process_group()


def _of_messages() -> torch.device:
    """Where the tensors are that the backend sends."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _tensors(algorithm: Inference[Any], state: Any) -> Iterable[Tensor]:
    for _, own in trainings(algorithm, state):
        if (model := getattr(own, "model", None)) is not None:
            yield from model.parameters()
    yield from _buffers(algorithm, state)


def _buffers(algorithm: Inference[Any], state: Any) -> Iterable[Tensor]:
    for _, own in trainings(algorithm, state):
        if (model := getattr(own, "model", None)) is not None:
            yield from model.buffers()
