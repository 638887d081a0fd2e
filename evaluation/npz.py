"""Arrays in ``.npz`` files that may be larger than the memory: written in parts, and mapped rather than read."""

import math
import struct
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import IO, Literal
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from bayes_share.errors import InputError

_PIECE = 2**24  # bytes
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip's member; its last numbers are the lengths of what follows


def map_arrays(path: str | Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Map arrays of an uncompressed ``.npz`` file into memory; nothing in the file is executed.

    Their bytes are read once, in pieces, to see that they are whole; afterwards the system reads what is looked at and
    drops it where memory is short. What is written into such an array stays in memory and never reaches the file.

    Args:
        path: the file.
        names: which arrays; those that are not in the file are left out.

    Returns:
        The arrays, and the names of all that the file holds.

    Raises:
        InputError: a file that is missing or damaged, or an array that is compressed or holds objects; names the file.
    """
    try:
        with open(path, "rb") as file, ZipFile(file) as archive:
            there = [name.removesuffix(".npy") for name in archive.namelist()]
            arrays = {name: _map_array(file, archive, name) for name in names if name in there}
            return arrays, there
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    # A damaged byte can be anywhere in the zip or in an array's header, and each place raises its own kind.
    except Exception as error:
        raise InputError(f"{path}: damaged, or no .npz file of plain arrays ({type(error).__name__})") from error


def _map_array(file: IO[bytes], archive: ZipFile, name: str) -> np.ndarray:
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != ZIP_STORED:
        raise InputError(f"{name} are compressed, and cannot be read in parts: write them by numpy.savez")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(member)
        header = member.tell()
        while member.read(_PIECE):  # the last piece checks the sum over all of them
            pass
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects")
    if info.file_size != header + dtype.itemsize * math.prod(shape):
        raise ValueError(f"{name} is not as long as its header says")
    order: Literal["F", "C"] = "F" if is_fortran else "C"
    if not math.prod(shape):
        return np.empty(shape, dtype, order)
    file.seek(info.header_offset)
    offset = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))) + header
    array = np.asarray(np.memmap(file, dtype, "c", offset, shape, order))
    # By others than `write_array`, whose arrays lie as they should, it may begin at any byte.
    return array if array.flags.aligned else array.copy()


def write_array(archive: ZipFile, name: str, shape: Sequence[int], parts: Iterable[np.ndarray]) -> None:
    """Write an array into an ``.npz`` file, part by part; the bytes are those of ``numpy.savez``.

    Args:
        archive: the file, opened for writing without compression.
        name: of the array.
        shape: of the whole.
        parts: along its first axes, in order; all of one type.
    """
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        for index, part in enumerate(parts):
            if index == 0:
                form = {"descr": part.dtype.str, "fortran_order": False, "shape": tuple(shape)}
                np.lib.format.write_array_header_1_0(member, form)
            member.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
