"""Random signs generated from seeds: factors that do not have to be stored."""

from hashlib import shake_128

import numpy as np
import torch
from torch import Tensor

_WORD = 4  # bytes per sign, so that the probability is exact to 2⁻³²


def draw_seeds(members: int, device: torch.device) -> Tensor:
    """Draw a seed for each member from torch's global generator on the CPU."""
    return torch.randint(2**63 - 1, (members,)).to(device)


def signs_from(seeds: Tensor, name: str, shape: tuple[int, ...], probability: float, like: Tensor) -> Tensor:
    """Generate the signs ``[member, *shape]`` of the given seeds: the same on every machine and in every version.

    Args:
        seeds: ``[member]``, int64.
        name: the name of the factor, so that the factors of a layer differ.
        shape: the shape of one member's signs.
        probability: the probability of +1.
        like: a tensor with the dtype and device of the result.
    """
    if seeds.is_meta:
        return torch.empty(len(seeds), *shape, dtype=like.dtype, device="meta")
    count, bound = int(np.prod(shape, dtype=int)), round(probability * 2 ** (8 * _WORD))
    digests = [shake_128(f"{seed}/{name}".encode()).digest(_WORD * count) for seed in seeds.tolist()]
    words = np.stack([np.frombuffer(digest, "<u4") for digest in digests]).astype(np.int64)
    signs = np.where(words < bound, 1.0, -1.0).reshape(len(seeds), *shape)
    return torch.from_numpy(signs).to(device=like.device, dtype=like.dtype)
