"""Images that do not fit into memory are kept in a mapped file, give the same results, and leave no file behind."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bayes_share.data import load_data
from bayes_share.data import mapped_images as module
from bayes_share.data.mapped_images import empty_images, images_at, joined_images
from bayes_share.errors import InputError
from bayes_share.inference import MAP, fit, predict
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network

SIDE = 48

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Simulate a machine with hardly any free memory, and return its folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(module, "free_memory", lambda: 1000)
    monkeypatch.setattr(module, "_AT_A_TIME", 1000)
    monkeypatch.setattr(module.tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of different sizes and modes, in two classes by brightness."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for place in range(40):
        height, width = (int(size) for size in rng.integers(40, 90, 2))
        pixels = rng.integers(0, 128, (height, width, 3)).astype(np.uint8) + np.uint8(127 * (place % 2))
        path = folder / ("dark", "bright")[place % 2] / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).convert("L" if place % 5 == 0 else "RGB").save(path)
    return folder


def test_small_arrays_are_in_memory_and_large_ones_in_an_unnamed_file(
    without_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = empty_images((10, 3, 20, 20))
    assert isinstance(mapped, np.memmap)
    mapped[:] = 7
    assert mapped.sum() == 7 * mapped.size
    assert list(without_memory.iterdir()) == []
    monkeypatch.setattr(module, "free_memory", lambda: 10**6)
    assert type(empty_images((10, 3, 20, 20))) is np.ndarray


def test_a_large_selection_of_images_is_in_a_file_too(without_memory: Path) -> None:
    images = torch.randint(256, (30, 3, 8, 8), dtype=torch.uint8)
    indices = torch.randperm(30)[:21]
    found = images_at(images, indices)
    assert torch.equal(found, images[indices])
    assert _is_in_a_file(found, without_memory)
    assert not _is_in_a_file(images, without_memory)


def test_images_in_a_mapped_file_equal_those_in_memory(pictures: Path, request: pytest.FixtureRequest) -> None:
    name = f"folder:{pictures}"
    before = load_data(name, image_size=SIDE)
    folder = request.getfixturevalue("without_memory")
    after = load_data(name, image_size=SIDE)
    assert _is_in_a_file(after.train.images, folder)
    assert after.digest == before.digest
    for one, other in zip(("train", "validation", "test"), ("train", "validation", "test"), strict=True):
        assert torch.equal(getattr(after, one).images, getattr(before, other).images)
        assert getattr(after, one).names == getattr(before, other).names
    assert torch.equal(after.mean, before.mean)
    assert torch.equal(after.std, before.std)
    assert list(folder.iterdir()) == []


def test_training_on_mapped_images_gives_the_same_predictions_as_in_memory(
    pictures: Path, request: pytest.FixtureRequest
) -> None:
    def trained() -> torch.Tensor:
        data = load_data(f"folder:{pictures}", image_size=SIDE, augment="flip")

        def build() -> Model:
            return Model(build_network("lenet", num_classes=2, in_channels=3, image_size=(SIDE, SIDE)))

        return predict(MAP(), fit(MAP(), build, data, epochs=1, batch_size=7), data.normalise(data.test.images))

    before = trained()
    request.getfixturevalue("without_memory")
    assert torch.equal(trained(), before)


def test_mapped_images_take_no_private_memory(
    tmp_path: Path, without_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_A_TIME", 2**21)
    rng = np.random.default_rng(0)
    for place in range(300):
        path = tmp_path / "pictures" / "ab"[place % 2] / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (224, 224, 3)).astype(np.uint8)).save(path)
    load_data(f"folder:{tmp_path}/pictures")  # the first call imports modules and fills caches
    before = _private_bytes()
    data = load_data(f"folder:{tmp_path}/pictures")
    size = sum(part.images.nbytes for part in (data.train, data.validation, data.test))
    assert size == 300 * 3 * 224 * 224
    assert _private_bytes() - before < size / 3


def test_free_memory_respects_the_limit_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CGROUP", tmp_path)
    whole = module.free_memory()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 1200\ninactive_file 1500\nactive_file 300\n")
    assert module.free_memory() > whole // 2
    (tmp_path / "memory.max").write_text("5000\n")
    assert module.free_memory() == 5000 - 1200


def test_a_temporary_folder_in_memory_is_avoided_unless_the_user_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.tempfile, "tempdir", "/tmp")
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(module, "_MOUNTS", mounts)
    mounts.write_text("/dev/sda / ext4 rw 0 0\n")
    assert module._folder_on_disk() == "/tmp"
    mounts.write_text("/dev/sda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n")
    assert module._folder_on_disk() == "/var/tmp"
    monkeypatch.setenv("TMPDIR", "/tmp")  # the user's choice
    assert module._folder_on_disk() == "/tmp"


def test_a_missing_temporary_folder_raises_an_input_error(without_memory: Path) -> None:
    without_memory.rmdir()
    with pytest.raises(InputError, match=r"has no room for them .*No such file"):
        empty_images((10, 3, 20, 20))


def test_a_full_disk_raises_an_input_error(without_memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=rf"do not fit into memory, and {without_memory} has no room .* TMPDIR"):
        empty_images((10, 3, 20, 20))


def _is_in_a_file(images: torch.Tensor, folder: Path) -> bool:
    """Return whether the memory of a tensor is a mapped file in a folder."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
        if first <= images.data_ptr() < last:
            return str(folder) in line
    return False


def _private_bytes() -> int:
    """Return the memory of this process that is not mapped from files."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


def test_joined_images_are_in_a_file_if_they_are_large(without_memory: Path) -> None:
    one, other = (torch.randint(256, (count, 3, 8, 8), dtype=torch.uint8) for count in (5, 3))
    found = joined_images(one, other)
    assert torch.equal(found, torch.cat([one, other]))
    assert _is_in_a_file(found, without_memory)
