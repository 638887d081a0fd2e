"""Out-of-distribution sets are converted to the form of the data, or refused with a one-line error."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from bayes_share.data import Data, load_data, load_ood
from bayes_share.data.image_format import in_form, resized
from bayes_share.data.ood import OODName
from bayes_share.errors import InputError


def stored(path: Path, shape: tuple[int, ...], num: int = 40, seed: int = 1, **more: np.ndarray) -> str:
    """Write random images to a file, and return its name as a data set."""
    images = np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(num) % 2, **more)
    return f"npz:{path}"


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", hold_out=(8, 9))


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load_data(stored(tmp_path_factory.mktemp("own") / "own.npz", (12, 10, 3), num=100, seed=5))


@pytest.mark.parametrize("name", ["noise", "photographs", "held-out"])
def test_sets_without_a_download_have_the_form_of_the_data(name: str, digits: Data) -> None:
    found = load_ood(name, digits, limit=60)
    assert (found.name, found.source) == (name, name)
    assert found.images.shape == (60, 1, 8, 8)
    assert found.images.dtype == torch.uint8
    assert found.images.unique().numel() > 10
    assert torch.equal(found.images, load_ood(name, digits, limit=60).images)
    assert not torch.equal(found.images, load_ood(name, digits, limit=60, seed=1).images)


def test_the_number_of_available_images_is_recorded(digits: Data) -> None:
    assert load_ood("noise", digits, limit=12).available == 10_000
    assert len(load_ood("noise", digits, limit=20_000).images) == 10_000
    assert load_ood("photographs", digits, limit=12).available == 1000
    assert load_ood("held-out", digits).available == len(load_ood("held-out", digits).images) == len(digits.held_out)


def test_noise_is_uniform(coloured: Data) -> None:
    images = load_ood("noise", coloured, limit=500).images
    assert images.shape == (500, 3, 12, 10)
    counts = images.flatten().bincount(minlength=256).double()
    expected = images.numel() / 256
    assert ((counts - expected).square() / expected).sum() < 255 + 5 * (2 * 255) ** 0.5


def test_photographs_are_colourful_and_differ(coloured: Data) -> None:
    images = load_ood("photographs", coloured, limit=100).images
    assert images.shape == (100, 3, 12, 10)
    assert len({image.numpy().tobytes() for image in images}) == 100
    assert (images.float().mean((0, 2, 3)) > 20).all()


def test_other_sizes_and_channels_are_converted(digits: Data, coloured: Data, tmp_path: Path) -> None:
    name = stored(tmp_path / "big.npz", (31, 29, 3))
    with np.load(tmp_path / "big.npz") as file:
        pixels = torch.from_numpy(file["images"]).movedim(-1, 1)
    found = load_ood(name, coloured)
    assert (found.name, found.source, found.available) == ("big", name, 40)
    same = functional.resize(pixels, [12, 10], antialias=True)
    assert (found.images.int() - same.int()).abs().max() <= 1
    grey = load_ood(name, digits).images
    grey_first = functional.resize(functional.rgb_to_grayscale(pixels), [8, 8], antialias=True)
    assert (grey.int() - grey_first.int()).abs().max() <= 1
    repeated = load_ood(stored(tmp_path / "grey.npz", (12, 10)), coloured).images
    assert torch.equal(repeated[:, 0], repeated[:, 1])
    assert torch.equal(repeated[:, 0], repeated[:, 2])


def test_resizing_agrees_with_pillow(coloured: Data) -> None:
    images = load_ood("noise", coloured, limit=3).images
    for image, own in zip(images, resized(images, (5, 7)), strict=True):
        other = np.asarray(Image.fromarray(image.movedim(0, -1).numpy()).resize((7, 5), Image.Resampling.BILINEAR))
        assert (own.movedim(0, -1).int() - torch.from_numpy(other.copy()).int()).abs().max() <= 1


def test_images_of_the_right_form_are_returned_unchanged(coloured: Data) -> None:
    images = load_ood("noise", coloured, limit=3).images
    assert in_form(images, 3, (12, 10), "noise") is images


def test_a_split_file_gives_its_test_part(coloured: Data, tmp_path: Path) -> None:
    split = np.repeat([0, 2], [25, 15])
    whole = load_ood(stored(tmp_path / "whole.npz", (12, 10, 3)), coloured)
    part = load_ood(stored(tmp_path / "part.npz", (12, 10, 3), split=split), coloured)
    assert (whole.available, part.available) == (40, 15)
    assert torch.equal(part.images, whole.images[25:])


def test_a_file_needs_no_labels(coloured: Data, tmp_path: Path) -> None:
    with_labels = load_ood(stored(tmp_path / "set.npz", (12, 10, 3)), coloured)
    with np.load(tmp_path / "set.npz") as file:
        images = file["images"]
    for name, stripped in (("set", images), ("grey", images[..., 0])):
        np.savez(tmp_path / f"{name}.npz", images=stripped)
    assert torch.equal(load_ood(f"npz:{tmp_path / 'set.npz'}", coloured).images, with_labels.images)
    assert load_ood(f"npz:{tmp_path / 'grey.npz'}", coloured).images.shape == with_labels.images.shape
    own = torch.cat([coloured.train.images, coloured.validation.images, coloured.test.images])
    np.savez(tmp_path / "own.npz", images=own.permute(0, 2, 3, 1).numpy())
    with pytest.raises(InputError, match="is the data set that the network was trained on"):
        load_ood(f"npz:{tmp_path / 'own.npz'}", coloured)
    np.savez(tmp_path / "bad.npz", labels=np.zeros(3, dtype=int))
    with pytest.raises(InputError, match="there is no array 'images'"):
        load_ood(f"npz:{tmp_path / 'bad.npz'}", coloured)


def test_a_folder_of_classes_is_read(digits: Data, tmp_path: Path) -> None:
    for kind in ("bark", "brick"):
        (tmp_path / "textures" / kind).mkdir(parents=True)
        for number in range(3):
            grey = np.full((20, 20), 40 * number + 10, np.uint8)
            Image.fromarray(grey).save(tmp_path / "textures" / kind / f"{number}.png")
    found = load_ood(f"folder:{tmp_path / 'textures'}", digits)
    assert found.name == "textures"
    assert found.images.flatten(1).unique(dim=1).flatten().tolist() == [10, 50, 90] * 2


def test_a_subset_is_a_random_sample_in_order(coloured: Data, tmp_path: Path) -> None:
    name = stored(tmp_path / "set.npz", (12, 10, 3), num=200)
    whole = [image.numpy().tobytes() for image in load_ood(name, coloured).images]
    part = load_ood(name, coloured, limit=50)
    places = [whole.index(image.numpy().tobytes()) for image in part.images]
    assert part.available == 200
    assert places == sorted(set(places))
    assert len(places) == 50
    assert min(places) < 40
    assert max(places) > 160


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("svhn", "svhn", "svhn"),
        ("part=npz:/a/b.npz", "part", "npz:/a/b.npz"),
        ("npz:/a/b.npz", "b", "npz:/a/b.npz"),
        ("d=npz:/a/c=d.npz", "d", "npz:/a/c=d.npz"),
        ("folder:/a/tex", "tex", "folder:/a/tex"),
        ("white=noise", "white", "noise"),
    ],
)
def test_names_and_sources_are_parsed(text: str, name: str, source: str) -> None:
    assert OODName.parse(text) == OODName(name, source)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nois", "unknown out-of-distribution set 'nois': did you mean 'noise'? Choose from cifar10"),
        ("cifar", "did you mean 'cifar10'?"),
        ("my=nois", "did you mean 'noise'?"),
        (
            "npz:/a/c=d.npz",
            "'c=d' is not a valid name of a set: use at most 100 letters, digits, dots and dashes, as in my-set=npz:/a",
        ),
        ("a/b=noise", "'a/b' is not a valid name of a set: use at most 100 letters,"),
        (".a=noise", "'.a' is not a valid name of a set: use at most 100 letters,"),
        ("_train=noise", "'_train' is not a valid name of a set: use at most 100 letters,"),
        ("digits", "digits is the data set that the network was trained on"),
        ("x=digits", "digits is the data set that the network was trained on"),
        ("npz:/nowhere.npz", "npz:/nowhere.npz: no such file or folder"),
        ("folder:/nowhere", "no such folder"),
    ],
)
def test_invalid_names_and_missing_sources_raise_input_errors(text: str, words: str, digits: Data) -> None:
    with pytest.raises(InputError) as caught:
        load_ood(text, digits)
    message = str(caught.value)
    assert words in message, message
    assert "\n" not in message


def test_four_channels_are_refused(coloured: Data, tmp_path: Path) -> None:
    name = stored(tmp_path / "rgba.npz", (12, 10, 4))
    with pytest.raises(InputError, match=r"images with 4 channels cannot be converted to the 3 that the network takes"):
        load_ood(name, coloured)


def test_the_data_set_itself_under_another_name_is_refused(coloured: Data, tmp_path: Path) -> None:
    name = stored(tmp_path / "copy.npz", (12, 10, 3), num=100, seed=5)
    with pytest.raises(InputError, match="is the data set that the network was trained on"):
        load_ood(f"other={name}", coloured)


def test_held_out_without_such_classes_and_an_empty_sample_are_refused(coloured: Data) -> None:
    with pytest.raises(InputError, match="no class was held out of npz:"):
        load_ood("held-out", coloured)
    with pytest.raises(InputError, match="an out-of-distribution set must have at least 1 image, not 0"):
        load_ood("noise", coloured, limit=0)
