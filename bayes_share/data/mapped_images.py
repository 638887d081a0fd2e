"""Images that may be more than the memory holds: in a file that the system maps, and that is gone with the process."""

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
_PART = 0.25  # of the free memory that one array of images may take
_PART_OF_DEVICE = 0.5  # of its free memory
_AT_A_TIME = 2**22  # pixels that are copied


def empty_images(shape: tuple[int, ...]) -> np.ndarray:
    """An array of uint8 without values: in memory, or in a mapped file where it is a large part of the free memory.

    The file is in ``TMPDIR``, or else in the system's folder for temporary files on a disk, has no name, and is gone
    when the array is. The system reads and writes its pages as they are used, and keeps as many in memory as there is
    room for.

    Args:
        shape: of the array.

    Raises:
        InputError: the folder has no room for the file.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if size <= _PART * free_memory():
        return np.empty(shape, np.uint8)
    folder = _folder_on_disk()
    try:
        with tempfile.TemporaryFile(prefix="bayes-share-", dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is found here, and not when a page is written
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
    """Some of the images, in the order of their indices; on the CPU, many of them are as `empty_images` has them."""
    size = len(indices) * images[:1].numel()
    if images.device.type != "cpu" or size <= max(_AT_A_TIME, _PART * free_memory()):
        return images[indices]
    found = torch.from_numpy(empty_images((len(indices), *images.shape[1:])))
    count = max(1, _AT_A_TIME // images[:1].numel())
    for part, of_part in zip(found.split(count), indices.split(count), strict=True):
        part.copy_(images[of_part])
    return found


def has_room_for(device: torch.device | str, size: int) -> bool:
    """Whether a device takes so many bytes of images beside all else; what is no CUDA device does."""
    device = torch.device(device)
    return device.type != "cuda" or size <= _PART_OF_DEVICE * torch.cuda.mem_get_info(device)[0]


def free_memory() -> int:
    """Bytes that are free for this process, as far as the system says; what could be freed counts too.

    A container has no more than its control group leaves it.
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
    except (OSError, KeyError, ValueError):  # there is none, or no limit
        return free
    return min(free, max(0, most - used + cached))


def _folder_on_disk() -> str:
    """The folder for temporary files; where that is in memory and nobody has named it, the one that outlasts a boot."""
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
