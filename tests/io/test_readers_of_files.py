"""Readers accept a file or raise a one-line error, whatever the path and the content."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from thinned import thinned

from bayes_share.data import load_data, load_ood
from bayes_share.data.cifar10c import read_cifar10c
from bayes_share.data.tables import load_table
from bayes_share.errors import InputError
from bayes_share.evaluation import read_human_labels, read_outputs, read_predictions
from bayes_share.io.reading import reading
from bayes_share.reports.run_record import RunRecord
from bayes_share.runs.run_folder import RunFolder

MUTANTS = 250


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """Stop a test that waits for a pipe forever."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def read_data(path: Path) -> None:
    load_data(f"npz:{path}")


def read_folder(path: Path) -> None:
    load_data(f"folder:{path}")


def read_ood(path: Path) -> None:
    load_ood(f"x=npz:{path}", load_data("digits"))


def read_ood_folder(path: Path) -> None:
    load_ood(f"x=folder:{path}", load_data("digits"))


def read_factors(path: Path) -> None:
    folder = RunFolder(path.parent)
    if path != folder.factors and os.path.lexists(path):
        path.rename(folder.factors)
    _ = RunRecord(folder, {}, {}, []).factors


def read_table(path: Path) -> None:
    load_table(path, "y")


def read_corrupted(path: Path) -> None:
    np.save(path.parent / "labels.npy", np.zeros(50_000, np.uint8))
    if os.path.lexists(path):
        path.rename(path.parent / "fog.npy")
    read_cifar10c(path.parent, "fog", 1)


READERS: dict[str, Callable[[Path], Any]] = {
    "data": read_data,
    "folder": read_folder,
    "ood": read_ood,
    "ood folder": read_ood_folder,
    "predictions": read_predictions,
    "outputs": read_outputs,
    "human labels": read_human_labels,
    "factors": read_factors,
    "cifar-10-c": read_corrupted,
    "table": read_table,
}


def refused(reader: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        reader(path)
    message = str(caught.value)
    assert message.isprintable(), message
    return message


NODES: dict[str, Callable[[Path], Any]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "an empty file": Path.touch,
    "text": lambda path: path.write_text("text"),
    "a sparse file of 10^11 bytes": lambda path: [path.touch(), os.truncate(path, 10**11)],
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("node", NODES)
def test_a_path_that_is_no_valid_file_raises_a_one_line_error(node: str, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    NODES[node](path)
    refused(READERS[reader], path)


PATHS = {
    "300 characters": Path("a" * 300),
    "5000 characters": Path("a/" * 2500),
    "a null byte": Path("a\0b"),
    "not UTF-8": Path(os.fsdecode(b"a\xff")),
    "a line break": Path("a\nb"),
    "an unknown user's home": Path("~nobody-of-this-name/x"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("reader", [name for name in READERS if name not in ("factors", "cifar-10-c")])
@pytest.mark.parametrize("case", PATHS)
def test_unusable_paths_raise_one_line_errors(case: str, reader: str) -> None:
    refused(READERS[reader], PATHS[case])


UNEXPECTED: dict[str, np.ndarray] = {
    "strings": np.array(["a"] * 60),
    "bytes": np.array([b"a"] * 60),
    "dates": np.zeros(60, "M8[s]"),
    "complex": np.zeros(60, complex),
    "records": np.zeros(60, [("a", "i4"), ("b", "f8")]),
    "booleans": np.zeros(60, bool),
    "long double": np.zeros(60, np.longdouble),
    "a scalar": np.array(3),
    "empty": np.zeros(0, np.uint8),
    "large unsigned integers": np.full(60, 2**64 - 1, np.uint64),
    "large integers": np.arange(60, dtype=np.int64) * 10**12,
    "many axes": np.zeros((1,) * 60, np.uint8),
    "no rows": np.zeros((0, 10**12), np.uint8),
    "no columns": np.zeros((10**12, 0, 1), np.uint8),
}
INTACT: dict[str, dict[str, np.ndarray]] = {
    "data": {"images": np.zeros((60, 4, 4), np.uint8), "labels": np.arange(60) % 2, "split": np.arange(60) % 3},
    "ood": {"images": np.zeros((60, 4, 4), np.uint8)},
    "predictions": {
        "logits": np.zeros((1, 2, 60, 3), np.float32),
        "labels": np.arange(60) % 3,
        "features": np.ones((2, 60, 4), np.float32),
        "likelihood": np.array("categorical"),
    },
    "human labels": {"probs": np.full((60, 2), 0.5)},
    "factors": {"layers.0.r": np.ones((2, 2, 60), np.float32)},
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("strange", UNEXPECTED)
@pytest.mark.parametrize("reader", INTACT)
def test_arrays_of_unexpected_types_raise_one_line_errors(strange: str, reader: str, tmp_path: Path) -> None:
    for name in INTACT[reader]:
        np.savez(tmp_path / "x.npz", **{**INTACT[reader], name: UNEXPECTED[strange]})
        refused(READERS[reader], tmp_path / "x.npz")


def image(kind: str) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif} if kind in ("png", "jpeg", "tiff") else {}
        Image.linear_gradient("L").resize((6, 6)).save(path, kind, **options)

    return write


def read_image(path: Path) -> None:
    """Read a folder of images that contains the file."""
    folder = path.parent / "set"
    for name in ("cat", "dog"):
        if not (folder / name).exists():
            (folder / name).mkdir(parents=True)
            for i in range(10):
                image("png")(folder / name / f"{i}.png")
    path.rename(folder / "cat" / "0.png")
    load_data(f"folder:{folder}")


TABLE = "x,when,where,y\n" + "".join(f"{i},2020-01-{1 + i % 28},{'ab'[i % 2]},{i}.5\n" for i in range(30))
FUZZED: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "data": (lambda path: np.savez(path, **INTACT["data"]), read_data),
    "compressed data": (lambda path: np.savez_compressed(path, **INTACT["data"]), read_data),
    "predictions": (lambda path: np.savez(path, **INTACT["predictions"]), read_predictions),
    "table": (lambda path: Path(path.name).write_text(TABLE), read_table),
    "human labels": (lambda path: np.save(path, INTACT["human labels"]["probs"]), read_human_labels),
    "compressed tiff": (
        partial(Image.linear_gradient("L").resize((6, 6)).save, format="tiff", compression="jpeg"),
        read_image,
    ),
    **{kind: (image(kind), read_image) for kind in ("png", "jpeg", "gif", "tiff", "bmp", "webp", "tga", "ppm")},
}


def mutant(whole: bytes, rng: np.random.Generator) -> bytes:
    """Return a copy with a few bytes changed, removed or repeated, mostly near the ends, where headers are."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(len(content)) * rng.random() ** 2)
        place = place if rng.random() < 0.7 else len(content) - 1 - place
        piece = int(rng.integers(1, 9))
        match rng.integers(5):
            case 0:
                content[place] ^= 1 << int(rng.integers(8))
            case 1:
                content[place : place + piece] = rng.bytes(piece)
            case 2:
                content[place : place + piece] = rng.choice([b"\xff", b"\0", b"\x7f", b"(", b"9"]) * piece
            case 3:
                del content[place : place + piece]
            case 4:
                content[place:place] = content[place : place + piece]
        content = content or bytearray(b"\0")
    return bytes(content)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "kind", thinned(lambda kind: kind not in ("bmp", "gif", "ppm", "tga", "compressed tiff"), [*FUZZED])
)
def test_mutated_files_are_read_or_refused_in_one_line(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    write, reader = FUZZED[kind]
    path = tmp_path / "x.file"
    with path.open("wb") as file:
        write(file)  # type: ignore[arg-type]
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refusals, until = 0, time.monotonic() + 2
    for number in range(MUTANTS):
        path.write_bytes(mutant(whole, rng))
        message = ""
        try:
            reader(path)
        except InputError as error:
            message = str(error)
            refusals += 1
        assert message == "" or message.isprintable(), (number, message)
        if time.monotonic() > until:
            break
    assert refusals
    assert capfd.readouterr().err == ""
    assert not recwarn.list


def test_intact_files_are_read(tmp_path: Path) -> None:
    for reader, arrays in INTACT.items():
        np.savez(tmp_path / "x.npz", **arrays)
        READERS[reader](tmp_path / "x.npz")


class FullGPU(torch.OutOfMemoryError):
    """As raised by a library, for the memory of a GPU."""


def test_a_full_gpu_is_not_reported_as_a_damaged_file() -> None:
    for error in (torch.OutOfMemoryError("no room"), FullGPU("no room")):
        with pytest.raises(torch.OutOfMemoryError) as caught, reading("state.pt", "a checkpoint"):
            raise error
        assert caught.value is error
    said = "cannot be read as a checkpoint"
    for damage in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(InputError, match=said), reading("state.pt", "a checkpoint"):
            raise damage
