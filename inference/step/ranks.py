"""The processes of a training and their communication."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist

from bayes_share.errors import InputError

if dist.is_available():
    # Torch's optimizers import this module. If it is imported after a process group was made, the default arguments of
    # its functions hold the group until the interpreter ends, when the threads of gloo crash.
    import torch.distributed.nn.functional


@dataclass(frozen=True)
class Ranks:
    """This process and the number of processes of a training, which `torch.distributed` has joined.

    Args:
        rank: the rank of this process, from 0.
        count: the number of processes.
    """

    rank: int
    count: int

    @classmethod
    def here(cls) -> "Ranks":
        """Return the rank and size of the default process group, or of a single process without one."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(0, 1)
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, which writes files and prints messages."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            dist.barrier()

    def first_says(self, word: bool) -> bool:
        """Return the first process's value in all processes."""
        if self.count == 1:
            return word
        told = torch.tensor([float(word)], device=_message_device())
        dist.broadcast(told, 0)
        return bool(told.item())

    def any_says(self, *words: bool) -> list[bool]:
        """Return, for each value, whether it is true in any process."""
        if self.count == 1:
            return list(words)
        told = torch.tensor([float(word) for word in words], device=_message_device())
        dist.all_reduce(told)
        return [bool(word) for word in told.tolist()]

    def are_equal(self, digest: str) -> bool:
        """Return, in all processes, whether all have the same hexadecimal digest."""
        if self.count == 1:
            return True
        number = int(digest[:15], 16)  # 60 bits
        told = torch.tensor([number, -number], device=_message_device())
        dist.all_reduce(told, dist.ReduceOp.MAX)
        largest, minus_smallest = told.tolist()
        return bool(largest == -minus_smallest)

    def deals(self, number: int) -> bool:
        """Return whether a piece of work belongs to this process. Pieces are assigned in turn, by their numbers."""
        return number % self.count == self.rank

    def told(self, number: int, found: Any) -> Any:
        """Return a result to all processes from the one that computed it.

        Args:
            number: number of the piece of work; see `deals`.
            found: the result: tensors, plain values, and lists and dicts of them. Other processes' values are ignored.
        """
        if self.count == 1:
            return found
        owner, file = number % self.count, io.BytesIO()
        if self.rank == owner:
            torch.save(found, file)
        size = torch.tensor([file.getbuffer().nbytes], device=_message_device())
        dist.broadcast(size, owner)
        content = torch.empty(int(size.item()), dtype=torch.uint8)
        if self.rank == owner:
            content.copy_(torch.frombuffer(file.getbuffer(), dtype=torch.uint8))
        content = content.to(_message_device())
        dist.broadcast(content, owner)
        if self.rank == owner:
            return found
        return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), weights_only=True, map_location="cpu")


ALONE = Ranks(0, 1)
"""A single process."""


def use_own_gpu(device: torch.device) -> None:
    """Make the GPU that belongs to this process the current one: number ``LOCAL_RANK``, which ``torchrun`` sets.

    Nothing changes on other devices, if the device is a certain GPU, or without ``LOCAL_RANK``.

    Args:
        device: the device of the training.

    Raises:
        InputError: if there is no GPU of this number.
    """
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= count:
        raise InputError(
            f"LOCAL_RANK is {number}, but this process sees {count} GPU{'s' * (count != 1)}, numbered from 0: "
            f"start at most one process per GPU"
        )
    torch.cuda.set_device(number)


@contextmanager
def joined_by_torchrun(device: torch.device) -> Iterator[Ranks]:
    """Join the processes started by ``torchrun``, if there are any. On GPUs, each process uses its own.

    Args:
        device: the device of the training.

    Yields:
        The processes; a single one if ``torchrun`` started none or one. If processes are already joined, these.

    Raises:
        InputError: as in `use_own_gpu`.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or "RANK" not in os.environ or dist.is_initialized():
        yield Ranks.here()
        return
    use_own_gpu(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks.here()
        # If another process crashed as it exits, torchrun would stop one that still writes. If the first process has
        # failed, there is nobody to wait for, and its own error is the one to report.
        with nullcontext() if Ranks.here().is_first else suppress(RuntimeError):
            Ranks.here().wait()
    finally:
        dist.destroy_process_group()


def _message_device() -> torch.device:
    """Return the device of messages between processes: the host, unless the backend only supports GPUs."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
