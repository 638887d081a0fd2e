"""Random numbers of posterior draws: drawn on the CPU, so that all devices have the same draws, and then copied."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def normal_noise(like: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Draw standard normal noise with the shape, dtype and device of each tensor.

    The values are those of `torch.randn`, called for one tensor after another. All values of a dtype are copied to
    their device at once, and the host does not wait for the copy.

    Args:
        like: the tensors. Their values are not read.
        generator: a generator on the CPU.

    >>> from bayes_share.tensors.seeding import generator
    >>> first, second = normal_noise([torch.zeros(2), torch.zeros(3, 4)], generator("draw", 0))
    >>> same = generator("draw", 0)
    >>> torch.equal(first, torch.randn(2, generator=same)), torch.equal(second, torch.randn(3, 4, generator=same))
    (True, True)
    """
    kinds = [(tensor.device, tensor.dtype) for tensor in like]
    sizes: Counter[tuple[torch.device, torch.dtype]] = Counter()
    places = []
    for kind, tensor in zip(kinds, like, strict=True):
        places.append(slice(sizes[kind], sizes[kind] + tensor.numel()))
        sizes[kind] += tensor.numel()
    on_host = {
        (device, dtype): torch.empty(size, dtype=dtype, pin_memory=device.type == "cuda")
        for (device, dtype), size in sizes.items()
    }
    for kind, place, tensor in zip(kinds, places, like, strict=True):
        on_host[kind][place].view(tensor.shape).normal_(generator=generator)
    moved = {kind: host.to(kind[0], non_blocking=True) for kind, host in on_host.items()}
    return [moved[kind][place].view(tensor.shape) for kind, place, tensor in zip(kinds, places, like, strict=True)]


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy values from the CPU to a device. The host does not wait for the copy to a GPU."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
