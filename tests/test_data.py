import subprocess
import sys
import urllib.error
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision import datasets
from torchvision.transforms import v2 as transforms

from bayes_share.data import AUGMENTATIONS, Data, Split, epoch_order, eval_batches, load_data, train_batch
from bayes_share.data.source import stratified
from bayes_share.errors import InputError
from bayes_share.tensors.seeding import generator, seeded


def arrays(num: int = 60, classes: int = 3, shape: tuple[int, ...] = (8, 8, 3), seed: int = 0) -> dict[str, np.ndarray]:
    """Return random images with cyclic labels."""
    images = np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)
    return {"images": images, "labels": np.arange(num) % classes}


def one_file(folder: Path, **changes: object) -> str:
    found = {name: array for name, array in {**arrays(), **changes}.items() if array is not None}
    np.savez(folder / "set.npz", **found)
    return f"npz:{folder / 'set.npz'}"


def three_files(folder: Path, **parts: dict[str, np.ndarray]) -> str:
    for part, found in parts.items():
        np.savez(folder / f"{part}.npz", **found)
    return f"npz:{folder}"


def pictures(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), num: int = 10, seed: int = 0, **image) -> Path:
    rng = np.random.default_rng(seed)
    shape = image.get("shape", (8, 6, 3))
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(num):
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{i:02}.png")
    return folder


def rows(split: Split) -> list[bytes]:
    return [image.numpy().tobytes() for image in split.images]


def fails(name: str, *words: str, **options: object) -> None:
    """Assert that loading raises a one-line InputError that contains the words."""
    with pytest.raises(InputError) as caught:
        load_data(name, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


# --- loaded data


def test_digits_has_all_images_rescaled_to_eight_bits():
    data = load_data("digits")
    parts = (data.train, data.validation, data.test)
    assert sum(map(len, parts)) == 1797
    assert data.train.images.dtype == torch.uint8
    assert data.train.labels.dtype == torch.int64
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, (8, 8))
    assert data.class_names == tuple("0123456789")
    values = torch.cat([part.images.flatten() for part in parts]).unique().tolist()
    assert values == [round(level * 255 / 16) for level in range(17)]


def test_digits_import_neither_torchvision_nor_matplotlib():
    code = (
        "import sys; from bayes_share.data import load_data; load_data('digits'); "
        "print([m for m in ('torchvision', 'matplotlib', 'PIL') if m in sys.modules])"
    )
    root = Path(__file__).parent.parent
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_class_names_come_from_the_file_or_from_labels(tmp_path):
    assert load_data(one_file(tmp_path)).class_names == ("0", "1", "2")
    assert load_data(one_file(tmp_path, class_names=np.array(["a", "b", "c"]))).class_names == ("a", "b", "c")


def test_normalised_training_images_have_mean_0_and_deviation_1(tmp_path):
    data = load_data(one_file(tmp_path))
    x = data.normalise(data.train.images)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    pixels = data.train.images.double() / 255
    torch.testing.assert_close(data.mean.double(), pixels.mean((0, 2, 3)), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.std.double(), pixels.std((0, 2, 3), unbiased=False), atol=1e-6, rtol=0)


def test_normalisation_does_not_change_the_images(tmp_path):
    data = load_data(one_file(tmp_path))
    before = data.train.images.clone()
    data.normalise(data.train.images)
    assert torch.equal(data.train.images, before)


@pytest.mark.usefixtures("unchecked")
def test_only_uint8_images_are_normalised(tmp_path):
    data = load_data(one_file(tmp_path))
    images = data.test.images
    scaled = images.float() / 255
    for wrong in (scaled, scaled.double(), images.float(), images.long()):
        with pytest.raises(InputError, match=r"must be uint8, with pixels from 0 to 255, and are (float|int)"):
            data.normalise(wrong)
    again = (255 * scaled).round().to(torch.uint8)  # as the message says
    assert torch.equal(data.normalise(again), data.normalise(images))


def test_a_constant_channel_is_normalised_to_0(tmp_path):
    images = arrays()["images"]
    images[..., 1] = 200
    data = load_data(one_file(tmp_path, images=images))
    assert data.std[1] == 1
    torch.testing.assert_close(data.normalise(data.train.images)[:, 1], torch.zeros(42, 8, 8), atol=1e-6, rtol=0)


def test_moments_come_from_training_images_only(tmp_path):
    train, test, brighter = arrays(), arrays(seed=1), arrays(seed=1)
    brighter["images"] = np.full_like(brighter["images"], 255)
    first = load_data(three_files(tmp_path, train=train, test=test, validation=test))
    second = load_data(three_files(tmp_path, train=train, test=brighter, validation=brighter))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.std, second.std)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_equal_those_on_the_cpu():
    data = load_data("digits", augment="flip-crop")
    indices = epoch_order(len(data.train), 0, 0)[:64]
    with seeded(0, "step", 0):
        x, y = train_batch(data, indices)
    on_gpu = data.to("cuda")
    assert on_gpu.train.images.dtype == torch.uint8
    with seeded(0, "step", 0):
        x_gpu, y_gpu = train_batch(on_gpu, indices)
    assert x_gpu.is_cuda
    torch.testing.assert_close(x_gpu.cpu(), x)
    assert torch.equal(y_gpu.cpu(), y)


def test_to_moves_all_tensors():
    moved = load_data("digits").to("meta")
    for part in (moved.train, moved.validation, moved.test):
        assert part.images.device.type == part.labels.device.type == "meta"
        assert part.images.dtype == torch.uint8
    assert moved.mean.device.type == moved.std.device.type == "meta"


# --- three parts


def test_parts_are_disjoint_and_cover_everything(tmp_path):
    data = load_data(one_file(tmp_path))
    kept = [rows(part) for part in (data.train, data.validation, data.test)]
    expected = [image.transpose(2, 0, 1).tobytes() for image in arrays()["images"]]
    assert sorted(chain.from_iterable(kept)) == sorted(expected)
    assert [len(part) for part in kept] == [42, 6, 12]


def test_images_keep_their_labels(tmp_path):
    found = arrays()
    label_of = dict(zip((i.transpose(2, 0, 1).tobytes() for i in found["images"]), found["labels"], strict=True))
    data = load_data(one_file(tmp_path))
    for part in (data.train, data.validation, data.test):
        assert [label_of[image] for image in rows(part)] == part.labels.tolist()


def test_the_split_depends_on_the_split_seed_and_not_on_the_global_state():
    def validation(split_seed: int, global_seed: int) -> torch.Tensor:
        with seeded(global_seed, "anything"):
            return load_data("digits", split_seed=split_seed).validation.images

    assert torch.equal(validation(0, 0), validation(0, 1))
    assert not torch.equal(validation(0, 0)[:100], validation(1, 0)[:100])


def test_loading_does_not_use_the_global_generator():
    before = torch.get_rng_state()
    load_data("digits")
    assert torch.equal(torch.get_rng_state(), before)


def test_every_class_has_its_share_in_every_part():
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([100, 37, 10, 250]))
    parts = stratified(labels, (7, 1, 2), generator(0, "split"))
    for share, part in zip((0.7, 0.1, 0.2), parts, strict=True):
        expected = share * torch.bincount(labels)
        assert (torch.bincount(labels[part]) - expected).abs().max() < 1
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(labels)))


@pytest.mark.parametrize("shares", [(7, 1, 2), (9, 1)])
def test_a_rare_class_stays_in_training(shares):
    for rare in range(1, 12):
        labels = torch.tensor([0] * 50 + [1] * rare)
        parts = stratified(labels, shares, generator(rare, "split"))
        assert (labels[parts[0]] == 1).any()


def test_a_missing_validation_part_is_a_tenth_of_the_training_images(tmp_path):
    train, test = arrays(90), arrays(30, seed=1)
    data = load_data(three_files(tmp_path, train=train, test=test))
    assert [len(data.train), len(data.validation), len(data.test)] == [81, 9, 30]
    assert data.validation.labels.bincount().tolist() == [3, 3, 3]
    np.testing.assert_array_equal(data.test.images.numpy(), test["images"].transpose(0, 3, 1, 2))


def test_the_split_array_of_a_file_is_used(tmp_path):
    split = np.repeat([2, 0, 1], [15, 36, 9])
    data = load_data(one_file(tmp_path, split=split))
    for code, part in enumerate((data.train, data.validation, data.test)):
        np.testing.assert_array_equal(part.images.numpy(), arrays()["images"][split == code].transpose(0, 3, 1, 2))


def test_a_file_with_training_and_test_gets_a_validation_part(tmp_path):
    data = load_data(one_file(tmp_path, split=np.repeat([0, 2], [30, 30])))
    assert [len(data.train), len(data.validation), len(data.test)] == [27, 3, 30]


def test_a_folder_with_all_parts_is_read_unchanged(tmp_path):
    parts = {part: arrays(12 + i, seed=i) for i, part in enumerate(("train", "validation", "test"))}
    data = load_data(three_files(tmp_path, **parts))
    for part, found in parts.items():
        np.testing.assert_array_equal(getattr(data, part).images.numpy(), found["images"].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(getattr(data, part).labels.numpy(), found["labels"])


def test_images_without_a_channel_axis_have_one_channel(tmp_path):
    data = load_data(one_file(tmp_path, **arrays(shape=(8, 6))))
    assert (data.in_channels, data.image_size) == (1, (8, 6))


def test_other_arrays_are_ignored(tmp_path):
    load_data(one_file(tmp_path, pickled=np.array([{}, []], dtype=object)))


# --- folders of pictures


def test_one_folder_per_class_is_split(tmp_path):
    data = load_data(f"folder:{pictures(tmp_path)}")
    assert [len(data.train), len(data.validation), len(data.test)] == [14, 2, 4]
    assert data.class_names == ("cat", "dog")
    assert (data.in_channels, data.image_size) == (3, (8, 6))


def test_pixels_and_labels_are_read_unchanged(tmp_path):
    pictures(tmp_path / "train", num=10)
    pictures(tmp_path / "test", num=2, seed=1)
    data = load_data(f"folder:{tmp_path}")
    first = np.asarray(Image.open(tmp_path / "test" / "cat" / "00.png"))
    np.testing.assert_array_equal(data.test.images[0].numpy(), first.transpose(2, 0, 1))
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_classes_are_matched_by_name_if_a_part_lacks_some(tmp_path):
    pictures(tmp_path / "train")
    pictures(tmp_path / "validation", classes=("dog",), num=2)
    pictures(tmp_path / "test", classes=("dog",), num=3)
    data = load_data(f"folder:{tmp_path}")
    assert data.test.labels.tolist() == [1, 1, 1]
    assert data.validation.labels.tolist() == [1, 1]


def test_grey_pictures_have_one_channel_unless_some_are_coloured(tmp_path):
    assert load_data(f"folder:{pictures(tmp_path, shape=(8, 6))}").in_channels == 1
    pictures(tmp_path, classes=("fox",))
    assert load_data(f"folder:{tmp_path}").in_channels == 3


# --- downloads by torchvision


class Fake:
    """The part of torchvision's data set interface that is used."""

    shape: tuple[int, ...] = (32, 32, 3)
    made: list[tuple[str, dict]]

    def __init__(self, root: str, download: bool, **part: object) -> None:
        assert download
        self.made.append((root, part))
        training = part in ({"train": True}, {"split": "train"})
        found = arrays(40 if training else 10, classes=2, shape=self.shape, seed=int(training))
        self.images, self.labels = found["images"], found["labels"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), int(self.labels[index])


@pytest.mark.parametrize(
    ("name", "class_name", "shape", "augment"),
    [
        ("cifar10", "CIFAR10", (32, 32, 3), "flip-crop"),
        ("cifar100", "CIFAR100", (32, 32, 3), "flip-crop"),
        ("svhn", "SVHN", (32, 32, 3), "crop"),
        ("mnist", "MNIST", (28, 28), "crop"),
        ("fashion_mnist", "FashionMNIST", (28, 28), "crop"),
    ],
)
def test_downloads_are_split_and_augmented_as_usual(monkeypatch, tmp_path, name, class_name, shape, augment):
    fake = type("FakeSet", (Fake,), {"shape": shape, "made": [], "classes": ["left", "right"]})
    monkeypatch.setattr(datasets, class_name, fake)
    data = load_data(name, data_dir=tmp_path)
    assert [len(data.train), len(data.validation), len(data.test)] == [36, 4, 10]
    assert data.augment == augment
    assert data.class_names == ("left", "right")
    assert data.in_channels == (3 if len(shape) == 3 else 1)
    assert [root for root, _ in fake.made] == [str(tmp_path)] * 2
    expected = arrays(10, classes=2, shape=shape)["images"].reshape(10, *shape[:2], -1).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(data.test.images.numpy(), expected)


@pytest.mark.parametrize("class_name", ["CIFAR10", "CIFAR100", "SVHN", "MNIST", "FashionMNIST"])
def test_torchvision_has_the_data_sets(class_name):
    assert issubclass(getattr(datasets, class_name), datasets.VisionDataset)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("no route to host"),
        RuntimeError("no route to host\nor corrupted"),
        PermissionError("no route to host"),
        IndexError("no route to host"),
    ],
)
def test_a_failed_download_raises_an_input_error(monkeypatch, tmp_path, error):
    def raises(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "CIFAR10", raises)
    fails("cifar10", "cifar10", str(tmp_path), "no route to host", data_dir=tmp_path)


# --- batches


def test_each_epoch_visits_every_image_once_in_a_different_order():
    order = epoch_order(50, seed=0, epoch=0)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(50))
    torch.rand(3)
    assert torch.equal(order, epoch_order(50, seed=0, epoch=0))
    assert not torch.equal(order, epoch_order(50, seed=0, epoch=1))
    assert not torch.equal(order, epoch_order(50, seed=1, epoch=0))


class Unread(tuple[str, ...]):
    """Names that must not be read: the indices of a batch are on the GPU, and reading a name would wait for it."""

    __slots__ = ()

    def __getitem__(self, place):
        raise AssertionError("a name was read")

    def __iter__(self):
        raise AssertionError("the names were read")


def test_a_training_batch_does_not_read_the_names_of_images(tmp_path):
    data = load_data(f"folder:{pictures(tmp_path)}")
    indices = torch.tensor([3, 0, 3])
    expected, labels = data.normalise(data.train.images[indices]), data.train.labels[indices]
    object.__setattr__(data.train, "names", Unread(data.train.names))  # past the type check, which reads one
    x, y = train_batch(replace(data, augment="none"), indices)
    assert torch.equal(x, expected)
    assert torch.equal(y, labels)


def test_eval_batches_keep_the_order_and_the_last_smaller_batch(tmp_path):
    data = load_data(one_file(tmp_path))
    batches = list(eval_batches(data, data.test, 5))
    assert [len(x) for x, _ in batches] == [5, 5, 2]
    assert torch.equal(torch.cat([x for x, _ in batches]), data.normalise(data.test.images))
    assert torch.equal(torch.cat([y for _, y in batches]), data.test.labels)


def test_eval_batches_refuse_invalid_sizes_and_channels(tmp_path):
    data = load_data(one_file(tmp_path))
    with pytest.raises(InputError, match="batch_size is 0"):
        eval_batches(data, data.test, 0)
    with pytest.raises(InputError, match="1 channels"):
        eval_batches(data, load_data("digits").test, 5)


def test_without_augmentation_a_batch_contains_the_normalised_images():
    data = load_data("digits")
    indices = torch.tensor([5, 0, 5])
    x, y = train_batch(data, indices)
    assert torch.equal(x, data.normalise(data.train.images[indices]))
    assert torch.equal(y, data.train.labels[indices])


@pytest.mark.parametrize("augment", ["crop", "flip-crop"])
def test_the_same_seed_gives_the_same_batch(augment):
    data, indices = load_data("digits", augment=augment), torch.arange(64)

    def batch(step: int) -> torch.Tensor:
        with seeded(0, "step", step):
            return train_batch(data, indices)[0]

    assert torch.equal(batch(3), batch(3))
    assert not torch.equal(batch(3), batch(4))


def test_a_torchvision_transform_is_drawn_separately_for_each_image():
    """The result equals that of calling the transform on one image after the other."""
    transform = transforms.Compose([transforms.RandomHorizontalFlip(0.5), transforms.RandomRotation(30)])
    data, indices = load_data("digits", augment=transform), torch.arange(40)
    assert data.is_augmented
    with seeded(0, "step", 3):
        found, _ = train_batch(data, indices)
    with seeded(0, "step", 3):
        expected = torch.stack([transform(image) for image in data.train.images[indices]])
    assert torch.equal(found, data.normalise(expected))
    assert not torch.equal(found, data.normalise(data.train.images[indices]))


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (lambda image: image.float(), r"torch.float32 \[1, 8, 8\]"),
        (lambda image: image[:, 1:], r"torch.uint8 \[1, 7, 8\]"),
        (lambda image: image.numpy(), "ndarray"),
    ],
)
def test_a_transform_that_changes_shape_or_dtype_is_refused(transform, found):
    data = load_data("digits", augment=transform)
    with pytest.raises(
        InputError, match=rf"augment must return uint8 \[1, 8, 8\], like the image that it takes, not {found}"
    ):
        train_batch(data, torch.arange(4))


def test_augmentation_does_not_change_the_stored_images():
    data = load_data("digits", augment="flip-crop")
    before = data.train.images.clone()
    train_batch(data, torch.arange(100))
    assert torch.equal(data.train.images, before)


# --- augmentation


def versions(image: torch.Tensor, flips: tuple[bool, ...]) -> dict[tuple[bool, int, int], torch.Tensor]:
    """Return all possible augmentations of an image."""
    _, height, width = image.shape
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    found = {}
    for flip in flips:
        padded = functional.pad(image.flip(-1) if flip else image, (pad_x, pad_x, pad_y, pad_y))
        for top in range(2 * pad_y + 1):
            for left in range(2 * pad_x + 1):
                found[flip, top, left] = padded[:, top : top + height, left : left + width]
    return found


@pytest.mark.parametrize(("augment", "flips"), [("crop", (False,)), ("flip-crop", (False, True))])
@pytest.mark.parametrize("size", [(32, 32), (8, 8), (5, 16)])
def test_each_image_is_one_of_its_own_versions(augment, flips, size):
    images = torch.randn(24, 2, *size, generator=generator(0, "images"))
    with seeded(0, "step", 0):
        out = AUGMENTATIONS[augment](images)
    assert out.shape == images.shape
    assert out.is_contiguous()
    drawn = [
        [key for key, version in versions(before, flips).items() if torch.equal(version, after)]
        for before, after in zip(images, out, strict=True)
    ]
    assert all(len(keys) == 1 for keys in drawn)
    assert len({keys[0] for keys in drawn}) > 3  # drawn independently for each image


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_augmentations_draw_on_the_device_of_the_images(augment):
    with seeded(0, "step", 0):
        before = torch.get_rng_state()
        assert AUGMENTATIONS[augment](torch.randn(5, 3, 8, 8, device="meta")).device.type == "meta"
        assert torch.equal(torch.get_rng_state(), before)


def test_flips_and_shifts_are_uniform():
    image = torch.randn(1, 8, 8, generator=generator(0, "image"))
    with seeded(0, "step", 0):
        out = AUGMENTATIONS["flip-crop"](image.expand(18_000, 1, 8, 8))
    counts = torch.tensor(
        [(out == version).all((1, 2, 3)).sum() for version in versions(image, (False, True)).values()]
    )
    assert counts.sum() == 18_000
    assert (counts - 1000).abs().max() < 150  # 18 versions; five standard deviations
    assert abs(counts[9:].sum() - 9000) < 335


def test_shifted_images_are_padded_with_the_mean_colour(tmp_path):
    data = load_data(one_file(tmp_path), augment="crop")
    with seeded(0, "step", 0):
        x, _ = train_batch(data, torch.zeros(200, dtype=torch.int64))
    corner = x[:, :, 0, 0]
    assert (corner == 0).all(1).float().mean() > 0.3  # 5 of the 9 shifts bring padding into this corner


def test_augmentation_can_be_chosen(tmp_path):
    assert load_data("digits").augment == "none"
    assert load_data(one_file(tmp_path)).augment == "none"
    assert load_data("digits", augment="crop").augment == "crop"
    fails("digits", "unknown augmentation 'flipcrop'", "did you mean 'flip-crop'", augment="flipcrop")


# --- invalid data


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("digit", "did you mean 'digits'"),
        ("cifar", "did you mean 'cifar10'"),
        ("npz", "npz:DIR"),
        ("npz:", "npz:DIR"),
        ("folder:", "folder:DIR"),
        ("", "'': choose from cifar10, "),
        ("digits:8", "'digits:8': did you mean 'digits'? Choose from cifar10, "),
    ],
)
def test_unknown_names_suggest_a_known_one(name, word):
    fails(name, f"unknown data set {name!r}", word)


def test_missing_files_and_folders_raise_input_errors(tmp_path):
    fails(f"npz:{tmp_path / 'no'}", f"{tmp_path / 'no'}", "no such file")
    fails(f"folder:{tmp_path / 'no'}", f"{tmp_path / 'no'}", "no such folder")
    fails(f"npz:{'x' * 5000}", "npz:xxx")
    fails(f"npz:{tmp_path}", "no train.npz")
    three_files(tmp_path, train=arrays())
    fails(f"npz:{tmp_path}", "it has train.npz, but needs both train.npz and test.npz")


def test_damaged_files_raise_input_errors(tmp_path):
    whole = Path(one_file(tmp_path).removeprefix("npz:")).read_bytes()
    broken = tmp_path / "broken.npz"
    changed = bytearray(whole)
    changed[200] ^= 255
    for damaged in (b"", b"no archive", whole[:1000], whole[:-10], bytes(changed)):
        broken.write_bytes(damaged)
        fails(f"npz:{broken}", str(broken), "cannot be read as an npz file")
    with broken.open("wb") as file:
        np.save(file, np.arange(3))
    fails(f"npz:{broken}", "holds a single unnamed array, and should be")


def test_pickles_are_never_opened(tmp_path):
    fails(one_file(tmp_path, labels=np.array([0, 1, None] * 20, dtype=object)), "set.npz", "allow_pickle=False")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, ["no array 'images'", "labels"]),
        ({"labels": None, "y": np.arange(3)}, ["no array 'labels'", "it has: images, y"]),
        ({"images": arrays()["images"] / 255}, ["float64", "must be uint8"]),
        ({"images": arrays()["images"].reshape(60, -1)}, ["(60, 192)", "[N, H, W, C]"]),
        ({"images": arrays()["images"][None]}, ["(1, 60, 8, 8, 3)"]),
        ({"images": np.zeros((0, 8, 8), np.uint8), "labels": np.zeros(0, int)}, ["(0, 8, 8)", "at least one image"]),
        ({"images": np.zeros((60, 8, 0), np.uint8)}, ["(60, 8, 0)", "at least one image"]),
        ({"labels": np.arange(59) % 3}, ["(59,)", "60 images"]),
        ({"labels": (np.arange(60) % 3)[:, None]}, ["(60, 1)", "60 images"]),
        ({"labels": (np.arange(60) % 3).astype(float)}, ["float64", "must be integers"]),
        ({"labels": np.arange(60) % 3 - 1}, ["label -1", "counted from 0"]),
        ({"labels": np.arange(60) % 3 + 1}, ["no training image has label 0"]),
        ({"labels": np.arange(60) % 3 * 2}, ["no training image has label 1"]),
        (
            {"labels": np.append(np.arange(59) % 3, -1).astype(np.uint64), "split": np.arange(60) // 30 * 2},
            ["there is a label 18446744073709551615"],
        ),
        ({"labels": np.arange(60) // 59 * 10**15}, ["no training image has label 1"]),
        ({"labels": np.zeros(60, int)}, ["all training labels are 0", "two classes"]),
        ({"labels": np.arange(60) // 2}, ["60 images are too few", "70/10/20"]),
        ({"class_names": np.array(["a", "b"])}, ["2 class names", "3 classes"]),
        ({"class_names": np.arange(3)}, ["class_names are int64", "one string"]),
        ({"class_names": np.array(["a", "b", "c"], dtype=object)}, ["allow_pickle=False"]),
        ({"split": np.zeros(59, int)}, ["split must hold", "60 images"]),
        ({"split": np.arange(60) % 4}, ["split must hold", "2 for test"]),
        ({"split": np.zeros(60)}, ["split must hold", "one integer"]),
        ({"split": np.arange(60) % 2}, ["split has no 2", "no test images"]),
        ({"split": np.arange(60) % 2 + 1}, ["split has no 0", "no train images"]),
    ],
)
def test_invalid_arrays_raise_input_errors(tmp_path, changes, words):
    fails(one_file(tmp_path, **changes), "set.npz", *words)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_inconsistent_parts_raise_input_errors(tmp_path, part):
    parts = {"train": arrays(), "validation": arrays(), "test": arrays()}
    fails(three_files(tmp_path, **{**parts, part: arrays(classes=4)}), f"{part} has a label 3", "0 to 2")
    fails(three_files(tmp_path, **{**parts, part: arrays(shape=(8, 7, 3))}), f"8 x 7 x 3 (H x W x C) in {part}")
    fails(three_files(tmp_path, **{**parts, part: arrays(shape=(8, 8))}), f"8 x 8 x 1 (H x W x C) in {part}")
    fails(three_files(tmp_path, **{**parts, part: {"images": np.zeros(3)}}), f"{part}.npz", "no array 'labels'")


def test_too_few_training_images_for_a_validation_part_raise_an_input_error(tmp_path):
    fails(three_files(tmp_path, train=arrays(9), test=arrays(9)), "9 images are too few", "90/10")


def test_images_of_different_sizes_require_an_image_size(tmp_path):
    pictures(tmp_path)
    pictures(tmp_path, classes=("fox",), num=1, shape=(8, 8, 3))
    fails(f"folder:{tmp_path}", "fox", "8 x 8 pixels", "6 x 8", "--image-size")


def test_incomplete_folders_raise_input_errors(tmp_path):
    fails(f"folder:{tmp_path}", str(tmp_path), "one folder with images per class")
    pictures(tmp_path / "train")
    fails(f"folder:{tmp_path}", "it has train", "needs both train and test")
    pictures(tmp_path / "test", classes=("dog", "fox"))
    fails(f"folder:{tmp_path}", "test", "class 'fox'", "cat, dog")
    (tmp_path / "train" / "eel").mkdir()
    fails(f"folder:{tmp_path}", "train", "eel")


def test_unreadable_images_raise_input_errors(tmp_path):
    pictures(tmp_path)
    broken = tmp_path / "cat" / "00.png"
    whole = broken.read_bytes()
    for damaged in (b"", b"no picture", whole[:60]):
        broken.write_bytes(damaged)
        fails(f"folder:{tmp_path}", str(broken), "cannot be read as an image")
    Image.fromarray(np.zeros((8, 6), np.uint16)).save(broken)
    fails(f"folder:{tmp_path}", str(broken), "I;16", "8 bits")


def test_a_data_set_is_frozen():
    data: Data = load_data("digits")
    with pytest.raises(AttributeError):
        data.name = "other"
