"""Randomness from keys: the same key gives the same numbers, whatever was drawn before."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_from(*key: int | str) -> int:
    """A 63-bit seed for a key such as ``(seed, "step", 17)``, the same on every machine and in every process.

    >>> seed_from(0, "step", 17) == seed_from(0, "step", 17) != seed_from(0, "step", 18)
    True
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for a key, on a device."""
    return torch.Generator(device).manual_seed(seed_from(*key))


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Draw from torch's global generators as the key says, and leave them afterwards as they were found.

    What draws inside (dropout, initialisation, `torch.randn`, Pyro) gives the same numbers for the same key.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        _seed_torch(seed_from(*key))
        yield


def seed_globals(*key: int | str) -> None:
    """Have the global generators of torch, numpy and Python draw as the key says, from now on."""
    seed = seed_from(*key)
    _seed_torch(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002 (whose datasets draw from it)
    random.seed(seed)


@contextmanager
def seeded_everywhere(*key: int | str) -> Iterator[None]:
    """As `seeded`, for the global generators of numpy and Python too: what people's datasets draw from."""
    of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with seeded(*key):
            seed_globals(*key)
            yield
    finally:
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which takes longer than a small step: it notes a traceback for each unused device."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
