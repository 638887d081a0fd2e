"""CIFAR-10-C is read from the official files, and other files are refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_share.data import Data, Split, load_data
from bayes_share.data.cifar10c import CIFAR10C_TYPES, check_cifar10c, read_cifar10c
from bayes_share.errors import InputError

LABELS = np.arange(10_000) * 7 % 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write sparse files, where a few pixels encode the type, the severity and the index of the image."""
    folder = tmp_path_factory.mktemp("CIFAR-10-C")
    for number, name in enumerate(CIFAR10C_TYPES):
        array = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (50_000, 32, 32, 3))
        for severity in range(5):
            for image in (0, 4321, 9999):
                array[10_000 * severity + image, 3, 5] = (number, severity + 1, image % 251)
        array.flush()
    np.save(folder / "labels.npy", np.tile(LABELS, 5).astype(np.uint8))
    return folder


@pytest.fixture
def cifar10() -> Data:
    data = load_data("digits")
    images = torch.zeros((10_000, 3, 32, 32), dtype=torch.uint8)
    return replace(data, train=Split(images[:10], data.train.labels[:10]), test=Split(images, torch.from_numpy(LABELS)))


def test_there_are_19_types_with_brightness() -> None:
    assert len(CIFAR10C_TYPES) == len(set(CIFAR10C_TYPES)) == 19
    assert "brightness" in CIFAR10C_TYPES


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("name", ["brightness", "zoom_blur"])
def test_selected_images_of_a_severity_are_read(name: str, severity: int, folder: Path) -> None:
    chosen = torch.tensor([0, 7, 4321, 9999])
    part = read_cifar10c(folder, name, severity, chosen)
    assert part.images.shape == (4, 3, 32, 32)
    assert part.images.dtype == torch.uint8
    for image, place in ((0, 0), (2, 4321), (3, 9999)):
        expected = [CIFAR10C_TYPES.index(name), severity, place % 251]
        assert part.images[image, :, 3, 5].tolist() == expected
    assert part.images[1].max() == 0
    assert part.labels.tolist() == [int(LABELS[place]) for place in chosen]


def test_all_images_of_a_severity_are_read(folder: Path) -> None:
    whole = read_cifar10c(folder, "fog", 3)
    assert len(whole) == 10_000
    assert whole.images[9999, :, 3, 5].tolist() == [CIFAR10C_TYPES.index("fog"), 3, 9999 % 251]
    assert torch.equal(whole.labels, torch.from_numpy(LABELS))


def test_cifar10c_requires_the_test_labels_of_cifar10(folder: Path, cifar10: Data) -> None:
    check_cifar10c(folder, cifar10)
    other = replace(cifar10, test=Split(cifar10.test.images, cifar10.test.labels.flip(0)))
    for data in (other, load_data("digits")):
        with pytest.raises(InputError, match="requires the test images of CIFAR-10, and the labels of digits differ"):
            check_cifar10c(folder, data)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((10, 32, 32, 3), np.uint8), "uint8 [10, 32, 32, 3], but must be uint8 [50000, 32, 32, 3]"),
        (np.zeros((5, 2), np.float32), "this is float32 [5, 2]"),
        (None, "cannot be read: No such file or directory; give the folder of its 19 types"),
        (b"\x93NUMPY\x01\x00v\x00{", "cannot be read as an .npy file of CIFAR-10-C (ValueError: EOF"),
        (b"", "cannot be read as an .npy file"),
    ],
)
def test_missing_damaged_and_wrongly_shaped_files_are_refused(
    array: np.ndarray | bytes | None, words: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "labels.npy", np.tile(LABELS, 5))
    if isinstance(array, bytes):
        (tmp_path / "brightness.npy").write_bytes(array)
    elif array is not None:
        np.save(tmp_path / "brightness.npy", array)
    with pytest.raises(InputError) as caught:
        read_cifar10c(tmp_path, "brightness", 1)
    message = str(caught.value)
    assert words in message, message
    assert str(tmp_path / "brightness.npy") in message
    assert "\n" not in message


def test_missing_types_missing_labels_and_pickles_are_refused(folder: Path, cifar10: Data, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "brightness.npy").unlink()
    with pytest.raises(InputError, match=r"brightness.npy cannot be read: No such file"):
        check_cifar10c(tmp_path, cifar10)
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(InputError, match=r"labels.npy cannot be read: No such file"):
        read_cifar10c(tmp_path, "fog", 1)
    np.save(tmp_path / "labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"labels.npy cannot be read as an .npy file"):
        read_cifar10c(tmp_path, "fog", 1)


def test_unknown_types_and_severities_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'brightness'"):
        read_cifar10c(folder, "brightnes", 1)
    with pytest.raises(InputError, match="the severity of a corruption must be from 1 to 5, and is 6"):
        read_cifar10c(folder, "fog", 6)
