"""Signs made from seeds: factors that nobody has to store."""

from hashlib import shake_128

import numpy as np
import torch
from torch import Tensor

_WORD = 4  # bytes for each sign: the probability is right to 2⁻³²


def draw_seeds(members: int, device: torch.device) -> Tensor:
    """A seed for each member, from torch's global generator on the CPU."""
    return torch.randint(2**63 - 1, (members,)).to(device)


def signs_from(seeds: Tensor, name: str, shape: tuple[int, ...], probability: float, like: Tensor) -> Tensor:
    """The signs ``[member, *shape]`` that seeds stand for: the same on every machine, in every version.

    Args:
        seeds: ``[member]``, int64.
        name: of the factor, so that a layer's factors differ.
        shape: of one member's.
        probability: of +1.
        like: gives dtype and device.
    """
    if seeds.is_meta:
        return torch.empty(len(seeds), *shape, dtype=like.dtype, device="meta")
    count, bound = int(np.prod(shape, dtype=int)), round(probability * 2 ** (8 * _WORD))
    drawn = [shake_128(f"{seed}/{name}".encode()).digest(_WORD * count) for seed in seeds.tolist()]
    words = np.stack([np.frombuffer(one, "<u4") for one in drawn]).astype(np.int64)
    signs = np.where(words < bound, 1.0, -1.0).reshape(len(seeds), *shape)
    return torch.from_numpy(signs).to(device=like.device, dtype=like.dtype)
