"""Read, memory-map and write arrays in ``.npz`` files. Nothing in a file is executed."""

import io
import math
import os
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo, is_zipfile

import numpy as np

from bayes_share.errors import InputError
from bayes_share.io.reading import check_file, reading
from bayes_share.io.terminal import printable

_PIECE = 2**24  # bytes
_LONGEST_HEADER = 2**16  # bytes; numpy itself takes 10,000
_MOST_DENSE = 1032  # deflate's maximum compression ratio
_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member; ends with the lengths of the name and the extra field


@dataclass(frozen=True)
class _Form:
    """The content of an array's header, and the header's own length in bytes."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype
    header: int

    @property
    def num_bytes(self) -> int:
        return self.header + self.dtype.itemsize * math.prod(self.shape)


def read_arrays(
    path: str | Path, what: str, names: Collection[str] | None = None, remedy: str = "", unnamed: str | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read arrays from an ``.npz`` file. Memory is only allocated if the file holds as many bytes as the header says.

    Args:
        path: the file.
        what: what the file should be, for messages.
        names: the arrays to read; names that are not in the file are ignored. None: all.
        remedy: see `reading`.
        unnamed: the name given to the array of an ``.npy`` file. None: ``.npy`` files are rejected.

    Returns:
        The arrays by name, and the names of all arrays in the file.

    Raises:
        InputError: the file is missing, damaged or of another format, or an array holds objects. The message names
            the file.
    """
    check_file(path, what, remedy)
    if unnamed is not None and _is_single(path):
        with reading(path, what, remedy), open(path, "rb") as file:
            _form(file.read(_LONGEST_HEADER), os.fstat(file.fileno()).st_size)
            file.seek(0)
            return {unnamed: np.lib.format.read_array(file, allow_pickle=False)}, [unnamed]
    return _arrays(path, what, names, remedy, _read)


def map_arrays(path: str | Path, what: str, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Memory-map arrays of an uncompressed ``.npz`` file. The arrays may be larger than the memory.

    All bytes are read once, in pieces, to verify their checksums. Afterwards the operating system loads pages on
    access and drops them when memory is short. The arrays are copy-on-write: changes never reach the file.

    Args:
        path: the file.
        what: what the file should be, for messages.
        names: the arrays to map; names that are not in the file are ignored.

    Returns:
        The arrays by name, and the names of all arrays in the file.

    Raises:
        InputError: the file is missing or damaged, or an array is compressed or holds objects. The message names the
            file.
    """
    check_file(path, what)
    return _arrays(path, what, names, "", _map)


def write_array(archive: ZipFile, name: str, shape: Sequence[int], parts: Iterable[np.ndarray]) -> None:
    """Write an array to an ``.npz`` file in parts. The bytes are the same as those of ``numpy.savez``.

    Args:
        archive: the file, opened for writing without compression.
        name: the name of the array.
        shape: the shape of the whole array.
        parts: consecutive parts along the first axes, all of the same dtype.
    """
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        for index, part in enumerate(parts):
            if index == 0:
                form = {"descr": part.dtype.str, "fortran_order": False, "shape": tuple(shape)}
                np.lib.format.write_array_header_1_0(member, form)
            member.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)


def write_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray], stamp: str = "") -> None:
    """Write arrays to an ``.npz`` file without compression.

    Args:
        file: a binary file, opened for writing.
        arrays: the arrays by name.
        stamp: see `write_stamp`.
    """
    with ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            write_array(archive, name, array.shape, [array])
        write_stamp(archive, stamp)


def write_stamp(archive: ZipFile, stamp: str) -> None:
    """Record in an ``.npz`` file what its arrays belong to, as the zip comment, which numpy ignores."""
    archive.comment = stamp.encode()


def read_stamp(path: str | Path) -> str:
    """Return the stamp that `write_stamp` wrote to a file, or an empty string if there is no stamp or file."""
    with suppress(InputError):
        check_file(path, "an .npz file")
        with reading(path, "an .npz file"), ZipFile(path) as archive:
            return archive.comment.decode()
    return ""


def _arrays(
    path: str | Path,
    what: str,
    names: Collection[str] | None,
    remedy: str,
    take: Callable[[IO[bytes], ZipFile, ZipInfo], np.ndarray],
) -> tuple[dict[str, np.ndarray], list[str]]:
    if _is_single(path):
        raise InputError(f"{printable(path)} holds a single unnamed array, and should be {what}{remedy}")
    with reading(path, what, remedy), open(path, "rb") as file, _zip(file) as archive:
        members = [(info.filename.removesuffix(".npy"), info) for info in archive.infolist()]
        there = [name for name, _ in members]
        wanted = [(name, info) for name, info in members if names is None or name in names]
        if len(dict(wanted)) < len(wanted):
            raise ValueError("two arrays have the same name")
        return {name: take(file, archive, info) for name, info in wanted}, there


def _zip(file: IO[bytes]) -> ZipFile:
    if not is_zipfile(file):
        raise ValueError("it is not a zip archive")
    return ZipFile(file)


def _is_single(path: str | Path) -> bool:
    """Return whether a file has the ``.npy`` format, whatever its name."""
    with reading(path, "a file of arrays"), open(path, "rb") as file:
        return file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX


def _form(beginning: bytes, size: int) -> _Form:
    """Parse an array's header from its first bytes, and check it against the array's size including the header."""
    head = io.BytesIO(beginning)
    version = np.lib.format.read_magic(head)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    form = _Form(*read_header(head), head.tell())
    if form.dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded (allow_pickle=False)")
    is_endless = not form.dtype.itemsize and math.prod(form.shape) > 0  # empty strings, any number
    if min(form.shape, default=0) < 0 or is_endless or form.num_bytes != size:
        raise ValueError("the length of an array differs from its header")
    return form


def _form_of_member(file: IO[bytes], archive: ZipFile, info: ZipInfo) -> _Form:
    """Parse the array header of a zip member. The zip directory is checked as well."""
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError("an array uses a compression that numpy does not support")
    density = 1 if info.compress_type == ZIP_STORED else _MOST_DENSE
    if info.file_size > density * min(info.compress_size, os.fstat(file.fileno()).st_size):
        raise ValueError("an array has fewer bytes than the zip directory says")
    with archive.open(info) as member:
        return _form(member.read(_LONGEST_HEADER), info.file_size)


def _read(file: IO[bytes], archive: ZipFile, info: ZipInfo) -> np.ndarray:
    _form_of_member(file, archive, info)
    with archive.open(info) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read(1)  # reaching the end verifies the checksum
    return array


def _map(file: IO[bytes], archive: ZipFile, info: ZipInfo) -> np.ndarray:
    name = info.filename.removesuffix(".npy")
    if info.compress_type != ZIP_STORED:
        where = printable(file.name)
        raise InputError(f"{where}: {name} are compressed and cannot be memory-mapped: write them with numpy.savez")
    form = _form_of_member(file, archive, info)
    with archive.open(info) as member:
        while member.read(_PIECE):  # reaching the end verifies the checksum
            pass
    order: Literal["F", "C"] = "F" if form.is_fortran else "C"
    if not math.prod(form.shape):
        return np.empty(form.shape, form.dtype, order)
    file.seek(info.header_offset)
    lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + sum(lengths) + form.header
    array = np.asarray(np.memmap(file, form.dtype, "c", offset, form.shape, order))
    # `write_array` aligns arrays; in files from other programs an array may begin at any byte.
    return array if array.flags.aligned else array.copy()
