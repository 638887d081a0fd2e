"""The processes of a training, and what they tell each other."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist


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

    def any_says(self, *words: bool) -> list[bool]:
        """For each word, whether one of the processes says so."""
        if self.count == 1:
            return list(words)
        told = torch.tensor([float(word) for word in words], device=_of_messages())
        dist.all_reduce(told)
        return [bool(word) for word in told.tolist()]

    def deals(self, number: int) -> bool:
        """Whether the piece of work of this number, of those that are dealt out in turn, is this process's."""
        return number % self.count == self.rank

    def told(self, number: int, found: Any) -> Any:
        """In all processes, what the one found that had the piece of work of this number.

        Args:
            number: of the piece; see `deals`.
            found: tensors, plain values, and lists and dicts of them; counts in that process alone.
        """
        if self.count == 1:
            return found
        owner, file = number % self.count, io.BytesIO()
        if self.rank == owner:
            torch.save(found, file)
        size = torch.tensor([file.getbuffer().nbytes], device=_of_messages())
        dist.broadcast(size, owner)
        content = torch.empty(int(size.item()), dtype=torch.uint8)
        if self.rank == owner:
            content.copy_(torch.frombuffer(file.getbuffer(), dtype=torch.uint8))
        content = content.to(_of_messages())
        dist.broadcast(content, owner)
        if self.rank == owner:
            return found
        return torch.load(io.BytesIO(content.cpu().numpy().tobytes()), weights_only=True, map_location="cpu")


ALONE = Ranks(0, 1)
"""One process."""


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
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks.here()
    finally:
        dist.destroy_process_group()


def _of_messages() -> torch.device:
    """Where the words are that processes tell each other: on the host, unless the backend sends from GPUs alone."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
