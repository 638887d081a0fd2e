"""Randomness from keys: the same key gives the same numbers, whatever was drawn before."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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
        torch.manual_seed(seed_from(*key))
        yield
