"""Random seeds from keys: equal keys give equal random numbers, independent of previous draws."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_from(*key: int | str) -> int:
    """Return a 63-bit seed for a key such as ``(seed, "step", 17)``, the same on every machine and in every process.

    >>> seed_from(0, "step", 17) == seed_from(0, "step", 17) != seed_from(0, "step", 18)
    True
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Create a generator on a device, seeded by a key."""
    return torch.Generator(device).manual_seed(seed_from(*key))


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed torch's global generators by a key inside a context, and restore their states afterwards.

    Random operations inside (dropout, initialisation, `torch.randn`, Pyro) give the same results for the same key.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=list(devices)):
        _seed_torch(seed_from(*key))
        yield


def seed_globals(*key: int | str) -> None:
    """Seed the global generators of torch, NumPy and Python by a key."""
    seed = seed_from(*key)
    _seed_torch(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002 (users' datasets may use the global generator)
    random.seed(seed)


@contextmanager
def seeded_everywhere(*key: int | str) -> Iterator[None]:
    """Like `seeded`, also for the global generators of NumPy and Python, which users' datasets may draw from."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with seeded(*key):
            seed_globals(*key)
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def _seed_torch(seed: int) -> None:
    """Like `torch.manual_seed`, but faster: torch's function records a traceback for each unused device."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
