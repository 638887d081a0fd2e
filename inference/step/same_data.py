"""Checks that all processes of a training have the same data: whole batches, which are divided among them."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler
from torch.utils.data.distributed import DistributedSampler

from bayes_share.errors import InputError
from bayes_share.inference.step.ranks import Ranks
from bayes_share.tensors.trees import Tree, digest


def check_same(ranks: Ranks, what: str, *content: Tree) -> None:
    """Check that data are equal in all processes. Call this in all of them.

    Args:
        ranks: the processes.
        what: the name of the data in the message.
        content: the data: trees of tensors and plain values.

    Raises:
        InputError: in all processes, if the data differ between them.
    """
    if ranks.count > 1 and not ranks.are_equal(digest(*content)):
        raise InputError(
            f"{what} differ between the {ranks.count} processes: all processes must load the same data in the same "
            "order, as each batch is divided among them; do not shard the data, and let orders and augmentations draw "
            "from the global generators of torch, numpy or Python"
        )


def check_sampler(loader: Any, ranks: Ranks) -> None:
    """Check that no sampler of a loader gives each process a part of the examples.

    Args:
        loader: a loader or another iterable of batches, which may have samplers.
        ranks: the processes.

    Raises:
        InputError: if there are several processes and a `DistributedSampler` for several.
    """
    if ranks.count == 1:
        return
    for sampler in _samplers(loader, set()):
        if isinstance(sampler, DistributedSampler) and sampler.num_replicas > 1:
            raise InputError(
                f"a {type(sampler).__name__} gives each process a part of the examples, but all processes must load "
                "whole batches, which are divided among them: use a sampler of all examples, such as shuffle=True"
            )


def _samplers(owner: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the samplers that a loader or a sampler has as attributes, and those that they have."""
    for value in vars(owner).values() if hasattr(owner, "__dict__") else ():
        if isinstance(value, Sampler) and id(value) not in seen:
            seen.add(id(value))
            yield value
            yield from _samplers(value, seen)
