"""The digest differs for different data, and does not depend on how the data are stored."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayes_share.data import load_data

Arrays = dict[str, np.ndarray]


def arrays(seed: int = 0) -> Arrays:
    images = np.random.default_rng(seed).integers(0, 256, (60, 4, 6, 3), dtype=np.uint8)
    names = np.array(["cat", "dog", "eel"])
    return {"images": images, "labels": np.arange(60) % 3, "split": np.repeat([0, 1, 2], 20), "class_names": names}


def digest(path: Path, **changes: np.ndarray) -> str:
    np.savez(path, **{**arrays(), **changes})
    return load_data(f"npz:{path}").digest


def one_pixel(of: int) -> Callable[[Arrays], Arrays]:
    def change(found: Arrays) -> Arrays:
        images = found["images"].copy()
        images[of, 0, 0, 0] ^= 1
        return {"images": images}

    return change


CHANGES: dict[str, Callable[[Arrays], Arrays]] = {
    "a training image": one_pixel(0),
    "a validation image": one_pixel(20),
    "a test image": one_pixel(59),
    "inverted": lambda found: {"images": 255 - found["images"]},
    "the same bytes in another shape": lambda found: {"images": found["images"].reshape(60, 6, 4, 3)},
    "other labels": lambda found: {"labels": found["labels"][::-1].copy()},
    "another order": lambda found: {"images": np.roll(found["images"], 3, 0)},
    "fewer images": lambda found: {name: array[:57] for name, array in found.items() if name != "class_names"},
    "other parts": lambda found: {"split": np.repeat([0, 1, 2], [23, 17, 20])},
    "other names": lambda found: {"class_names": np.array(["cat", "dog", "fox"])},
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_data_have_another_digest(change: str, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    assert digest(path, **CHANGES[change](arrays())) != digest(path)


def test_the_digest_does_not_depend_on_how_arrays_are_stored(tmp_path: Path) -> None:
    expected = digest(tmp_path / "d.npz")
    assert len(expected) == 64
    found = arrays()
    np.savez_compressed(tmp_path / "other.npz", note=np.zeros(3), **found)
    assert load_data(f"npz:{tmp_path / 'other.npz'}").digest == expected
    stored = {"images": np.asfortranarray(found["images"]), "labels": found["labels"].astype(">u2")}
    assert digest(tmp_path / "d.npz", **stored) == expected
    (tmp_path / "parts").mkdir()
    for code, part in enumerate(("train", "val", "test")):
        of_part = found["split"] == code
        own = {"images": found["images"][of_part], "labels": found["labels"][of_part]}
        np.savez(tmp_path / "parts" / f"{part}.npz", class_names=found["class_names"], **own)
    assert load_data(f"npz:{tmp_path / 'parts'}").digest == expected


def test_the_digest_does_not_depend_on_options_or_the_machine() -> None:
    expected = load_data("digits").digest
    assert expected == load_data("digits", hold_out=(8, 9), split_seed=3, augment="crop").digest
    assert expected == load_data("digits").to("cpu").digest
    assert expected == "011c04e4096930f6a5341b6d34162342ba81fd8c6b3804188d08fee90b1b52e0"  # the same on every machine


def pets(folder: Path) -> str:
    rng = np.random.default_rng(0)
    for part, num in (("train", 10), ("test", 2)):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for i in range(num):
                Image.fromarray(rng.integers(0, 256, (4, 6), dtype=np.uint8)).save(folder / part / name / f"{i}.png")
    return f"folder:{folder}"


def test_the_digest_of_a_folder_depends_on_the_bytes_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = pets(tmp_path / "pets")
    expected = load_data(name).digest
    (tmp_path / "pets").rename(tmp_path / "moved")
    name, moved = f"folder:{tmp_path / 'moved'}", tmp_path / "moved"
    (moved / "train" / "cat" / "notes.txt").touch()
    (moved / "train").rename(moved / "Training")
    assert load_data(name).digest == expected
    with monkeypatch.context() as patched:  # another version of the decoder
        patched.setattr("bayes_share.data.folder._upright", lambda image: image.point(lambda value: value ^ 1))
        assert load_data(name).digest == expected
    image = moved / "test" / "dog" / "1.png"
    whole = image.read_bytes()
    image.write_bytes(whole + b"\0")
    assert load_data(name).digest != expected
    image.write_bytes(whole)
    assert load_data(name).digest == expected
    image.rename(image.with_name("-.png"))  # another order
    assert load_data(name).digest != expected
    image.with_name("-.png").rename(image)
    (moved / "Training" / "dog").rename(moved / "Training" / "eel")
    (moved / "test" / "dog").rename(moved / "test" / "eel")
    assert load_data(name).digest != expected


def test_an_image_in_another_class_has_another_digest(tmp_path: Path) -> None:
    name = pets(tmp_path / "pets")
    expected = load_data(name).digest
    train = tmp_path / "pets" / "train"
    (train / "dog" / "0.png").rename(train / "cat" / "99.png")  # the same files in the same order
    assert load_data(name).digest != expected
