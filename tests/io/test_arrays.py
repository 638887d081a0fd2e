"""Damaged or malicious array files raise one-line errors, without allocating memory or executing code."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayes_share.errors import InputError
from bayes_share.io.arrays import map_arrays, read_arrays

Reader = Callable[[Path], dict[str, np.ndarray]]


def read(path: Path) -> dict[str, np.ndarray]:
    return read_arrays(path, "an npz file", ["images"])[0]


def mapped(path: Path) -> dict[str, np.ndarray]:
    return map_arrays(path, "an npz file", ["images"])[0]


both = pytest.mark.parametrize("reader", [read, mapped])


def refused(reader: Reader, path: Path) -> str:
    with pytest.raises(InputError) as caught:
        reader(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
    return str(caught.value)


def npy(header: str | dict[str, Any], data: bytes = bytes(64), version: int = 1) -> bytes:
    text = str(header).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def archive(path: Path, content: bytes, how: int = zipfile.ZIP_STORED, name: str = "images.npy") -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        file.writestr(name, content)
    return path


def form(shape: tuple[int, ...] = (64,), descr: Any = "|u1", order: bool = False) -> dict[str, Any]:
    return {"descr": descr, "fortran_order": order, "shape": shape}


HEADERS: dict[str, str | dict[str, Any]] = {
    "10^10 bytes": form((10**10,)),
    "10^12 bytes": form((10**12,)),
    "10^30 bytes": form((10**30,)),
    "negative": form((-64,)),
    "negative twice": form((-8, -8)),
    "more bytes": form((65,)),
    "fewer bytes": form((63,)),
    "objects": form((8,), "|O"),
    "objects in records": form((8,), [("a", "|O")]),
    "no type": form((8,), "|q9"),
    "no shape": form(("a",)),  # type: ignore[arg-type]
    "tokens": "{'descr': '|u1', 'fortran_order': False, 'shape': (64, }",
    "brackets": "(" * 3000,
    "escapes": r"{'descr': '\d', 'fortran_order': False, 'shape': (64,)}",
    "a call": "__import__('os').abort()",
    "Python 2": "{'descr': '|u1', 'fortran_order': False, 'shape': (65L,)}",
    "long": "{'descr': '|u1', 'fortran_order': False, 'shape': (64,)}" + " " * 20_000,
}


@both
@pytest.mark.parametrize("case", HEADERS)
def test_wrong_headers_raise_one_line_errors_without_allocating_memory(
    case: str, reader: Reader, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = archive(tmp_path / "a.npz", npy(HEADERS[case]))
    tracemalloc.start()
    message = refused(reader, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "cannot be read as an npz file (" in message
    assert capfd.readouterr().err == ""
    assert peak < 1e7


@both
def test_headers_with_any_changed_byte_give_at_most_a_one_line_error(reader: Reader, tmp_path: Path) -> None:
    whole = npy(form())
    for place in range(len(whole) - 64):
        for value in (0, 0x80, 0xFF, ord("("), ord("'"), ord("9"), ord("\\")):
            path = archive(tmp_path / "a.npz", whole[:place] + bytes([value]) + whole[place + 1 :])
            message = ""
            try:
                reader(path)
            except InputError as error:
                message = str(error)
            assert message == "" or message.isprintable()


@both
@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("descr", ["|u1", ">i2", "<f8", ">U4", "|S4", "<c16", "<M8[s]", [("a", "<i4"), ("b", "<f4")]])
@pytest.mark.parametrize("order", [False, True])
def test_arrays_of_any_dtype_order_and_version_are_read_like_numpy(
    version: int, descr: Any, order: bool, reader: Reader, tmp_path: Path
) -> None:
    dtype = np.lib.format.descr_to_dtype(descr)
    data = np.random.default_rng(0).integers(0, 100, 24 * dtype.itemsize, dtype=np.uint8)
    data[::2] = 0
    shape = (2, 3, 4) if dtype.kind != "U" else (24,)
    content = npy(form(shape, descr, order), data.tobytes() if dtype.kind != "U" else bytes(24 * 16), version)
    found = reader(archive(tmp_path / "a.npz", content))["images"]
    expected = np.lib.format.read_array(io.BytesIO(content))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@both
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 10**12)])
def test_scalar_and_empty_arrays_are_read(shape: tuple[int, ...], reader: Reader, tmp_path: Path) -> None:
    found = reader(archive(tmp_path / "a.npz", npy(form(shape), bytes(0 in shape or 1)[: 0 not in shape])))
    assert found["images"].shape == shape


@both
def test_a_huge_number_of_empty_strings_is_refused(reader: Reader, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", npy(form((10**12,), "<U0"), b""))
    assert "the length of an array differs from its header" in refused(reader, path)


@both
def test_duplicate_names_are_refused(reader: Reader, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("images.npy", npy(form()))
        file.writestr("images", npy(form()))
    assert "two arrays have the same name" in refused(reader, tmp_path / "a.npz")


@both
def test_unsupported_compression_and_encryption_are_refused(reader: Reader, tmp_path: Path) -> None:
    for how in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        message = refused(reader, archive(tmp_path / "a.npz", npy(form()), how))
        assert "compress" in message
    path = archive(tmp_path / "a.npz", npy(form()))
    locked = bytearray(path.read_bytes())
    for place in (6, locked.index(b"PK\x01\x02") + 8):
        locked[place] |= 1  # encrypted
    path.write_bytes(locked)
    assert "encrypted" in refused(reader, path)


def test_a_zip_directory_with_a_false_size_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", npy(form((10**12,))), zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    size = 10**12 + len(npy(form((10**12,)), b""))
    entry = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    content[entry + 24 : entry + 28] = b"\xff" * 4  # marks that the size is in the extra field
    content[entry + 30 : entry + 32] = struct.pack("<H", 12)
    content[end + 12 : end + 16] = struct.pack("<I", end - entry + 12)
    content[end:end] = struct.pack("<HHQ", 1, 8, size)
    path.write_bytes(content)
    assert zipfile.ZipFile(path).getinfo("images.npy").file_size == size
    assert "an array has fewer bytes than the zip directory says" in refused(read, path)


def test_the_format_is_recognised_whatever_the_file_ending(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.arange(3))
    for reader in (read, mapped):
        assert "holds a single unnamed array, and should be an npz file" in refused(reader, tmp_path / "a.npz")
    arrays, there = read_arrays(tmp_path / "a.npz", "arrays", unnamed="x")
    assert (arrays["x"].tolist(), there) == ([0, 1, 2], ["x"])
    with (tmp_path / "a.npy").open("wb") as file:
        np.savez(file, images=np.arange(3))
    assert read_arrays(tmp_path / "a.npy", "arrays", unnamed="x")[1] == ["images"]
    (tmp_path / "b.npy").write_bytes(npy(form((10**12,))))
    with pytest.raises(InputError, match="the length of an array differs from its header"):
        read_arrays(tmp_path / "b.npy", "arrays", unnamed="x")


def test_only_requested_arrays_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.arange(3), pickled=np.array([{}]))
    assert list(read(tmp_path / "a.npz")) == ["images"]
    with pytest.raises(InputError, match=r"it holds Python objects, which are not loaded \(allow_pickle=False\)"):
        read_arrays(tmp_path / "a.npz", "an npz file")
