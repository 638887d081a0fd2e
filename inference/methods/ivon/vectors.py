"""Parameters that are updated together, as one vector."""

from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor


def grouped_by(params: Iterable[Tensor], key: Callable[[Tensor], Hashable]) -> list[list[Tensor]]:
    """Group parameters by a key, in order."""
    found: dict[Hashable, list[Tensor]] = {}
    for p in params:
        found.setdefault(key(p), []).append(p)
    return list(found.values())


def device_and_dtype(p: Tensor) -> tuple[torch.device, torch.dtype]:
    """Return what parameters must have in common to be joined."""
    return p.device, p.dtype


def join(tensors: Iterable[Tensor]) -> Tensor:
    """Join the values of tensors into one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def split_like(flat: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """Split a vector into tensors with the shapes of the parameters it was joined from."""
    parts = flat.split([p.numel() for p in params])
    return [part.view(p.shape) for part, p in zip(parts, params, strict=True)]
