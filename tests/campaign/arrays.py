"""Changes of NumPy array files and of images."""

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from tests.campaign.blobs import Change
from tests.campaign.inputs import Input


def _header(text: str, data: bytes = b"") -> bytes:
    """Return a `.npy` file with the given text as its header."""
    padded = text + " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode("latin1") + data


_HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 5), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 6), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1000000000000), }",
    "{'descr': '<f4', 'fortran_order': 3, 'shape': 'x', }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2.5,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (90,), }",
    "{'descr': [('a', '<f4'), ('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3,",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': (((((", "{'descr': '<f4' 'fortran_order'", "'''", "(" * 900,
    "{**1}", "{'descr': 1}", "[1]", "\\", "lambda: 0",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 70 + "), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '" + "x" * 5000 + "', 'fortran_order': False, 'shape': (3,), }",
    "",
]  # fmt: skip


def _other_values(array: np.ndarray, rng: Random) -> np.ndarray:
    """Replace some values by extreme ones of the same dtype."""
    array = array.copy()
    if array.size:
        flat = array.reshape(-1)
        at = rng.randrange(flat.size)
        if array.dtype.kind == "f":
            flat[at:] = rng.choice([np.nan, np.inf, -np.inf, 3e38, 0.0])
        elif array.dtype.kind in "iu":
            info = np.iinfo(array.dtype)
            flat[at : at + rng.choice((1, flat.size))] = rng.choice([info.min, info.max, 0, 3, min(info.max, 10**12)])
        else:
            flat[at] = np.zeros((), array.dtype)[()]
    return array


_TYPES = ["<f8", "<f2", "<i1", "<u8", "<c16", "<U3", "S2", "?", ">f4", ">i8"]

_ARRAYS: dict[str, Callable[[np.ndarray, Random], np.ndarray]] = {
    "values": _other_values,
    "type": lambda array, rng: array.astype(rng.choice(_TYPES)),
    "dates": lambda array, rng: np.zeros(array.shape, "<M8[s]"),
    "records": lambda array, rng: np.zeros(array.shape, [("a", "<f4"), ("b", "<i8")]),
    "raw": lambda array, rng: np.zeros(array.shape, "V7"),
    "fortran": lambda array, rng: np.asfortranarray(array),
    "turned": lambda array, rng: array.T,
    "no-axis": lambda array, rng: array.reshape(-1)[0] if array.size else array,
    "one-axis-more": lambda array, rng: array[..., None],
    "first": lambda array, rng: array[:1],
    "fewer": lambda array, rng: array[: len(array) // 2] if array.ndim else array,
    "more": lambda array, rng: np.concatenate([array, array]) if array.ndim else array,
    "none": lambda array, rng: array[:0] if array.ndim else array,
    "no-last": lambda array, rng: array[..., :0],
}  # fmt: skip
"""Changes of an array."""


def _members(given: Input) -> dict[str, bytes]:
    with zipfile.ZipFile(given.path) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(members: list[tuple[str, bytes]]) -> bytes:
    """Return a zip archive of named files. Names may be repeated."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def _array(given: Input, rng: Random, size: int) -> None:
    with np.load(given.path, allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    for _ in range(size):
        name = rng.choice(list(arrays))
        how = rng.choice([*_ARRAYS, "drop", "rename", "add"])
        if how in _ARRAYS:
            arrays[name] = _ARRAYS[how](arrays[name], rng) if arrays[name].ndim or how == "type" else arrays[name]
        elif how == "add":
            arrays[rng.choice(["split", "class_names", "features", "likelihood", "labels", "x/../y"])] = arrays[name]
        elif len(arrays) > 1:
            found = arrays.pop(name)
            arrays |= {"other": found} if how == "rename" else {}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    given.forge(buffer.getvalue())


def _npz_header(given: Input, rng: Random, size: int) -> None:
    members = _members(given)
    name = rng.choice(list(members))
    members[name] = _header(rng.choice(_HEADERS), members[name][128:])
    given.forge(zipped(list(members.items())))


def _zip(given: Input, rng: Random, size: int) -> None:
    """Write an unusual or damaged zip archive."""
    members = list(_members(given).items())
    content = bytearray(zipped(members))
    how = rng.choice(["twice", "encrypted", "method", "up", "bare", "size", "none", "text", "offset"])
    central = content.find(b"PK\x01\x02")
    if how == "twice":
        content = (
            bytearray(zipped([*members, members[0]])) if rng.random() < 0.5 else bytearray(zipped(members[:1] * 2))
        )
    elif how == "encrypted":
        content[central + 8] |= 1
        content[6] |= 1
    elif how == "method":
        content[central + 10] = content[8] = 99
    elif how == "up":
        content = bytearray(zipped([(f"../{name}", data) for name, data in members]))
    elif how == "bare":
        content = bytearray(members[0][1])
    elif how == "size":
        content[central + 24 : central + 28] = b"\xff\xff\xff\xff"
    elif how == "none":
        content = bytearray(zipped([]))
    elif how == "text":
        content = bytearray(zipped([(name, b"hello") for name, _ in members]))
    else:
        content[central + 42 : central + 46] = struct.pack("<I", rng.randrange(2**32))
    given.forge(bytes(content))


def _npy(given: Input, rng: Random, size: int) -> None:
    array = np.load(given.path, allow_pickle=False)
    buffer = io.BytesIO()
    np.save(buffer, rng.choice(list(_ARRAYS.values()))(array, rng))
    given.forge(buffer.getvalue())


def _npy_header(given: Input, rng: Random, size: int) -> None:
    given.forge(_header(rng.choice(_HEADERS), given.path.read_bytes()[128:]))


def _only_header(given: Input, rng: Random, size: int) -> None:
    given.forge(
        _header(rng.choice([*_HEADERS, "{'descr': '|u1', 'fortran_order': False, 'shape': (50000, 32, 32, 3), }"]))
    )


def _npy_as_npz(given: Input, rng: Random, size: int) -> None:
    given.forge(zipped([(rng.choice(["probs.npy", "counts.npy", "x.npy", "probs"]), given.path.read_bytes())]))


def _png(given: Input, rng: Random, size: int) -> None:
    """Change the size and mode in a PNG header, possibly to a gigantic image."""
    content = bytearray(given.path.read_bytes())
    sizes = (0, 1, 7, 20_000, 2**31 - 1)
    content[16:24] = struct.pack(">II", rng.choice(sizes), rng.choice(sizes))
    content[24:26] = bytes([rng.choice((1, 8, 16, 3)), rng.choice((0, 2, 3, 4, 6, 9))])
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    given.forge(bytes(content))


def _picture(given: Input, rng: Random, size: int) -> None:
    """Write another image in another format."""
    from PIL import Image

    buffer = io.BytesIO()
    mode = rng.choice(["L", "RGB", "RGBA", "P", "1", "I", "LA", "CMYK"])
    kind = rng.choice(["PNG", "JPEG", "GIF", "BMP", "TIFF"])
    if (kind, mode) in {("PNG", "CMYK"), *(("JPEG", m) for m in ("RGBA", "P", "LA", "I"))} or kind == "GIF":
        mode = "L"
    if kind == "BMP" and mode in ("RGBA", "I", "LA", "CMYK"):
        mode = "L"
    Image.new(mode, (rng.choice((6, 6, 7)), 6)).save(buffer, kind)
    given.forge(buffer.getvalue())


NPZ: dict[str, Change] = {
    "array": _array, "arrays": _array, "other-array": _array, "header": _npz_header, "zip": _zip,
}  # fmt: skip
NPY: dict[str, Change] = {"array": _npy, "header": _npy_header, "as-npz": _npy_as_npz}
HEADER: dict[str, Change] = {"header": _only_header, "other-header": _only_header}
PICTURE: dict[str, Change] = {"png": _png, "picture": _picture}
