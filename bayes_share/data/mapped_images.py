"""Images that may not fit into memory: kept in a memory-mapped temporary file that is deleted with the process."""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from bayes_share.errors import InputError

_CGROUP = Path("/sys/fs/cgroup")
_MOUNTS = Path("/proc/mounts")
_PART = 0.25  # the fraction of free memory that one array of images may take
_PART_OF_DEVICE = 0.5  # the same for the memory of a GPU
_AT_A_TIME = 2**22  # pixels copied at once


def empty_images(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised uint8 array, in a memory-mapped file if it would take over a quarter of the free memory.

    The file is in ``TMPDIR`` if that is set, otherwise in the system's folder for temporary files, or in ``/var/tmp``
    if that folder is in memory. The file has no name and is deleted with the array.

    Args:
        shape: the shape of the array.

    Raises:
        InputError: the folder has no space for the file.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= _PART * free_memory():
        return np.empty(shape, np.uint8)
    folder = _folder_on_disk()
    try:
        with tempfile.TemporaryFile(prefix="bayes-share-", dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # reports a full disk now rather than when a page is written
            else:
                file.truncate(size)
            return np.memmap(file, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"images of {size / 2**30:,.1f} GiB do not fit into memory, and {folder} has no room for them "
            f"({error.strerror}): set TMPDIR to a folder with more space, or use fewer or smaller images"
        ) from error


def images_at(
    images: UInt8[Tensor, "image channel height width"], indices: Int64[Tensor, "chosen"]
) -> UInt8[Tensor, "chosen channel height width"]:
    """Return the images at some indices. On the CPU, a large result is allocated by `empty_images`."""
    size = len(indices) * images[:1].numel()
    if images.device.type != "cpu" or size <= max(_AT_A_TIME, _PART * free_memory()):
        return images[indices]
    found = torch.from_numpy(empty_images((len(indices), *images.shape[1:])))
    count = max(1, _AT_A_TIME // images[:1].numel())
    for part, of_part in zip(found.split(count), indices.split(count), strict=True):
        part.copy_(images[of_part])
    return found


def joined_images(
    one: UInt8[Tensor, "some channel height width"], other: UInt8[Tensor, "more channel height width"]
) -> UInt8[Tensor, "all channel height width"]:
    """Return the images of two arrays as one array on the CPU. A large result is allocated by `empty_images`."""
    found = torch.from_numpy(empty_images((len(one) + len(other), *one.shape[1:])))
    found[: len(one)].copy_(one)
    found[len(one) :].copy_(other)
    return found


def has_room_for(device: torch.device | str, size: int) -> bool:
    """Return whether images of `size` bytes fit into half of a CUDA device's free memory; True for other devices."""
    device = torch.device(device)
    return device.type != "cuda" or size <= _PART_OF_DEVICE * torch.cuda.mem_get_info(device)[0]


def free_memory() -> int:
    """Return an estimate of the free memory for this process in bytes, including memory that could be reclaimed.

    In a container, the limit of its control group applies.
    """
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        free = pages * os.sysconf("SC_PAGE_SIZE") // 2 if pages > 0 else 2**32
    try:
        most, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        cached = int(counts["inactive_file"]) + int(counts["active_file"])
    except (OSError, KeyError, ValueError):  # no control group, or no limit
        return free
    return min(free, max(0, most - used + cached))


def _folder_on_disk() -> str:
    """Return the folder for temporary files, or ``/var/tmp`` if that folder is in memory and not set by the user."""
    usual = tempfile.gettempdir()
    is_named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return usual if is_named or not _is_in_memory(usual) or not os.access("/var/tmp", os.W_OK) else "/var/tmp"


def _is_in_memory(folder: str) -> bool:
    try:
        mounts = [line.split()[1:3] for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return False
    over = [(place, kind) for place, kind in mounts if os.path.realpath(folder).startswith(place.rstrip("/") + "/")]
    over += [(place, kind) for place, kind in mounts if place == os.path.realpath(folder)]
    return bool(over) and max(over, key=lambda mount: len(mount[0]))[1] in ("tmpfs", "ramfs")
