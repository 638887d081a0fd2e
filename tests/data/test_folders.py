"""Folders of images: each image is read once, ambiguous folders are refused, and skipped files are logged."""

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from bayes_share.data import Data, load_data, load_ood
from bayes_share.data.listing import list_images
from bayes_share.errors import InputError


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """Stop a test that waits for a pipe or follows circular links forever."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def picture(path: Path, grey: int = 0, size: tuple[int, int] = (4, 3), **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).save(path, **options)
    return path


def pets(folder: Path, num: int = 10, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for place, name in enumerate(classes):
        for i in range(num):
            picture(folder / name / f"{i}.png", 100 * place + i)
    return folder


def loaded(folder: Path) -> Data:
    return load_data(f"folder:{folder}")


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        loaded(folder)
    assert str(caught.value).isprintable()
    return str(caught.value)


def everything(data: Data) -> list[int]:
    """The grey value of each image, sorted."""
    return sorted(int(image.max()) for part in (data.train, data.validation, data.test) for image in part.images)


# --- order and links


def test_images_have_the_order_of_torchvisions_image_folder(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.png", "b/a/1.png", "b/a-b/1.png", "b/a/c/1.PNG", "B/1.jpeg", "a b/1.png", "é/1.bmp"):
        picture(tmp_path / "set" / name)
    elsewhere = picture(tmp_path / "elsewhere" / "deep" / "x.png").parent.parent
    (tmp_path / "set" / "b" / "a.lnk").symlink_to(elsewhere)
    (tmp_path / "set" / "b" / "0.png").symlink_to(picture(tmp_path / "alone.png"))
    theirs = ImageFolder(str(tmp_path / "set"))
    part = list_images(tmp_path / "set").parts["train"]
    assert list(part.classes) == theirs.classes
    assert [(str(path), name) for path, name in part.images] == [(p, theirs.classes[c]) for p, c in theirs.samples]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("cat/more", "."),
        ("cat/more", ".."),
        ("cat/more", "cat"),
        ("cat/more", "dog"),
        ("dog/more", "cat/deep"),
        ("fox", "dog"),
        ("again", "."),
    ],
)
def test_a_link_to_a_folder_that_is_read_already_is_refused(link: str, target: str, tmp_path: Path) -> None:
    folder = pets(tmp_path / "above" / "pets")
    picture(folder / "cat" / "deep" / "x.png")
    (folder / link).symlink_to(folder / target)
    message = refused(folder)
    assert message.startswith(str(folder / link)), message
    assert "remove" in message


def test_links_from_training_to_test_images_are_refused(tmp_path: Path) -> None:
    for part in ("train", "test"):
        pets(tmp_path / part)
    (tmp_path / "train" / "cat" / "more").symlink_to(tmp_path / "test" / "cat")
    assert f"{tmp_path / 'train' / 'cat' / 'more'} links to the same folder as" in refused(tmp_path)
    (tmp_path / "train" / "cat" / "more").unlink()
    (tmp_path / "train" / "cat" / "x.png").symlink_to(tmp_path / "test" / "cat" / "0.png")
    message = refused(tmp_path)
    assert f"{tmp_path / 'train' / 'cat' / 'x.png'} links to the same file as" in message
    assert str(tmp_path / "test" / "cat" / "0.png") in message


def test_links_to_other_folders_are_followed_but_only_once(tmp_path: Path) -> None:
    elsewhere = pets(tmp_path / "elsewhere")
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("cat", "dog"):
        (folder / name).symlink_to(elsewhere / name)
    (tmp_path / "link").symlink_to(folder)
    assert everything(loaded(tmp_path / "link")) == [*range(10), *range(100, 110)]
    (folder / "eel").symlink_to(elsewhere / "cat")
    assert "links to the same folder as" in refused(folder)


def test_circular_links_are_refused(tmp_path: Path) -> None:
    pets(tmp_path / "set")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    (tmp_path / "set" / "cat" / "a").symlink_to(tmp_path / "a")
    assert "links to the same folder as" in refused(tmp_path / "set")


# --- skipped files


def test_skipped_files_are_logged_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = pets(tmp_path / "pets")
    for i in range(5):
        (folder / "cat" / f"{i}.txt").touch()
    for name in (".ipynb_checkpoints", "__MACOSX"):
        picture(folder / name / "x.png")
    picture(folder / "dog" / ".thumbs" / "x.png")
    picture(folder / "dog" / "._0.png")
    picture(folder / "stray.png")
    (folder / "README").touch()
    (folder / "dog" / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "dog" / "x.png")
    with caplog.at_level(logging.INFO, "bayes_share"):
        assert loaded(folder).class_names == ("cat", "dog")
    assert [record.getMessage() for record in caplog.records] == [
        f"folder:{folder}: 13 of 33 files and folders are skipped: 5 .txt, 3 hidden folders, 1 file without an ending, "
        "1 image outside of a class, 1 hidden file, 1 broken link, 1 pipe"
    ]


def test_nothing_is_logged_if_nothing_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded(pets(tmp_path))
    assert not caplog.records


def test_a_class_without_images_reports_the_skipped_files(tmp_path: Path) -> None:
    folder = pets(tmp_path, classes=("cat", "dog"))
    (folder / "eel").mkdir()
    for i in range(3):
        (folder / "eel" / f"{i}.heic").touch()
    assert "there is no image in eel; it needs one folder with images per class (skipped: 3 .heic)" in refused(folder)


@pytest.mark.parametrize("target", ["nowhere", "x.png"])
def test_a_broken_link_with_an_image_ending_is_refused(target: str, tmp_path: Path) -> None:
    (pets(tmp_path) / "cat" / "x").symlink_to("x")
    assert len(everything(loaded(tmp_path))) == 20
    (tmp_path / "cat" / "x.png").symlink_to(target)
    assert refused(tmp_path) == f"{tmp_path}/cat/x.png is a link to a missing image"


@pytest.mark.parametrize(
    "name", ["x.jfif", "x.JPG", "x.jpe", "x.gif", "x.dib", "x.webp", "x.tif", "x.tga", "x.jp2", "x.pnm", "x.Png"]
)
def test_images_of_many_endings_are_read(name: str, tmp_path: Path) -> None:
    ending = name.partition(".")[2].lower()
    picture(pets(tmp_path) / "cat" / name, 50, format={"jfif": "jpeg", "jpe": "jpeg", "pnm": "ppm"}.get(ending))
    found = everything(loaded(tmp_path))
    assert len(found) == 21
    assert found[10] == pytest.approx(50, abs=2)


# --- parts


@pytest.mark.parametrize(
    "names", [("Training", "Testing", "Validation"), ("TRAIN", "TEST", "val"), ("train", "test", "valid")]
)
def test_parts_are_recognised_by_their_common_names(names: tuple[str, ...], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        pets(tmp_path / name, num=number + 1)
    data = loaded(tmp_path)
    assert [len(data.train), len(data.test), len(data.validation)] == [2, 4, 6]
    assert data.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train", "Training", "test"), "Training and train are both named after the train part"),
        (("train", "test", "val", "valid"), "val and valid are both named after the validation part"),
        (("train", "test", "extra"), "train, test are parts of a data set, but extra in the same folder contain"),
        (("train", "car"), "train are parts of a data set, but car in the same folder contain images too"),
        (("train", "val"), "it has train, val, but needs both train and test"),
        (("seg_train", "seg_test"), "seg_train, seg_test seem to be parts of a data set rather than classes; rename"),
        (
            ("TrainImages", "TestImages"),
            "TrainImages, TestImages seem to be parts of a data set rather than classes; rename",
        ),
        (("Testing",), "it has Testing, but needs both train and test"),
    ],
)
def test_ambiguous_or_incomplete_parts_are_refused(names: tuple[str, ...], words: str, tmp_path: Path) -> None:
    for name in names:
        pets(tmp_path / name)
    assert words in refused(tmp_path)


def test_classes_may_have_names_similar_to_parts(tmp_path: Path) -> None:
    pets(tmp_path, classes=("train_station", "test_tube"))
    assert loaded(tmp_path).class_names == ("test_tube", "train_station")


def test_nothing_is_reported_as_left_out_of_empty_folders(tmp_path: Path) -> None:
    pets(tmp_path / "train")
    (tmp_path / "test").mkdir()
    assert "skipped" not in refused(tmp_path)


def test_parts_within_classes_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        pets(tmp_path / name, classes=("Train", "test"))
    assert f"{tmp_path / 'cat'} has train and test in it" in refused(tmp_path)


def test_the_parts_of_a_folder_of_npz_files_have_the_same_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for seed, name in enumerate(("Training", "val", "test", "more")):
        images = np.random.default_rng(seed).integers(0, 256, (20 + seed, 4, 4), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(20 + seed) % 2)
    data = load_data(f"npz:{tmp_path}")
    assert [len(data.train), len(data.validation), len(data.test)] == [20, 21, 22]
    assert [record.getMessage() for record in caplog.records] == [f"npz:{tmp_path}: 1 of 4 files are skipped: more.npz"]
    (tmp_path / "valid.npz").symlink_to(tmp_path / "val.npz")
    with pytest.raises(InputError, match=r"val\.npz and valid\.npz are both named after the validation part"):
        load_data(f"npz:{tmp_path}")


@pytest.mark.parametrize("ending", ["", ".npz"])
def test_parts_that_link_to_the_same_data_are_refused(ending: str, tmp_path: Path) -> None:
    train = tmp_path / f"train{ending}"
    if ending:
        np.savez(train, images=np.zeros((20, 4, 4), np.uint8), labels=np.arange(20) % 2)
    else:
        pets(train)
    (tmp_path / f"test{ending}").symlink_to(train)
    with pytest.raises(InputError, match=f"two of test{ending}, train{ending} are links to the same data"):
        load_data(f"{'npz' if ending else 'folder'}:{tmp_path}")


# --- pixels


def test_images_of_different_sizes_are_resized_and_cropped_like_torchvision(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [(30, 40), (40, 30), (21, 21), (64, 23), (100, 333), (24, 24), (25, 24)]
    for place, (height, width) in enumerate(sizes):
        for name in ("train/cat", "train/dog", "test/cat", "validation/dog"):
            path = tmp_path / name / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            mode = ("RGB", "L", "RGBA")[place % 3]
            shape = (height, width) if mode == "L" else (height, width, len(mode))
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(path)
    data = load_data(f"folder:{tmp_path}", image_size=21)
    theirs = transforms.Compose([transforms.Resize(24), transforms.CenterCrop(21), transforms.PILToTensor()])
    for part, found in (("train", data.train), ("test", data.test), ("validation", data.validation)):
        files = sorted((tmp_path / part).rglob("*.png"))
        expected = torch.stack([theirs(Image.open(file).convert("RGB")) for file in files])
        assert torch.equal(found.images, expected)
        assert found.names == tuple(str(file.relative_to(tmp_path)) for file in files)
    for place, size in enumerate([(30, 40), (50, 20)]):
        picture(tmp_path / "elsewhere" / "fox" / f"{place}.png", 100 + place, size)
    elsewhere = load_ood(f"folder:{tmp_path / 'elsewhere'}", data).images
    assert (elsewhere == torch.tensor([100, 101])[:, None, None, None]).all()
    assert elsewhere.shape == (2, 3, 21, 21)


def test_square_images_of_one_size_are_averaged_and_others_cropped(tmp_path: Path) -> None:
    for place in range(10):
        picture(tmp_path / "square" / "cat" / f"{place}.png", 10, (8, 8))
        picture(tmp_path / "square" / "dog" / f"{place}.png", 50, (8, 8))
        picture(tmp_path / "wide" / "cat" / f"{place}.png", 10, (16, 8))
        picture(tmp_path / "wide" / "dog" / f"{place}.png", 50, (16, 8))
    square, wide = (load_data(f"folder:{tmp_path / name}", image_size=4) for name in ("square", "wide"))
    assert (square.averaged_from, wide.averaged_from) == ((8, 8), None)
    assert square.image_size == wide.image_size == (4, 4)
    assert load_data(f"folder:{tmp_path / 'wide'}").image_size == (8, 16)
    with pytest.raises(InputError, match="image_size must be from 1 to 8, and is 9"):
        load_data(f"folder:{tmp_path / 'square'}", image_size=9)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(ending: str, orientation: int, tmp_path: Path) -> None:
    stored = np.zeros((8, 16), np.uint8)
    stored[:4, :4] = 255  # a corner
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].T,
        8: np.rot90(stored),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    for i in range(10):
        Image.fromarray(stored).save(tmp_path / "cat" / f"{i}.{ending}", exif=exif)
        Image.fromarray(np.ascontiguousarray(upright)).save(tmp_path / "dog" / f"{i}.png")
    data = loaded(tmp_path)
    assert data.image_size == upright.shape
    for image in data.train.images:
        assert np.abs(image[0].numpy().astype(int) - upright).max() < 60


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nothing", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_unreadable_exif_data_are_ignored(exif: bytes, tmp_path: Path) -> None:
    picture(pets(tmp_path) / "cat" / "0.jpg", 0, exif=exif)
    assert len(everything(loaded(tmp_path))) == 21


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 3), grey) for grey in (60, 200)]
    frames[0].save(pets(tmp_path) / "cat" / "x.gif", save_all=True, append_images=frames[1:])
    assert everything(loaded(tmp_path))[10] == 60


def test_a_format_that_needs_an_external_program_is_refused(tmp_path: Path) -> None:
    (pets(tmp_path) / "cat" / "0.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 3\n%%EndComments\nshowpage\n%%EOF\n"
    )
    assert "cat/0.png cannot be read as an image (ValueError: its format is not supported)" in refused(tmp_path)


def transparent_palette(path: Path) -> None:
    image = Image.new("P", (4, 3))
    image.putpalette(list(range(256)) * 3)
    image.save(path, transparency=bytes([0, 128, 255]))


def bomb(path: Path) -> None:
    Image.new("1", (10_000, 9_500)).save(path)


@pytest.mark.parametrize(("write", "size"), [(transparent_palette, (4, 3)), (bomb, (10_000, 9_500))])
def test_warnings_of_pillow_are_not_shown(
    write: Callable[[Path], None],
    size: tuple[int, int],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    write(pets(tmp_path) / "cat" / "0.png")
    if size == (4, 3):
        loaded(tmp_path)
    else:
        assert "give an image size, such as --image-size 224, to resize and crop all of them" in refused(tmp_path)
    assert capfd.readouterr().err == ""
    assert not recwarn.list


# --- names


def test_hostile_class_names_become_printable_and_writable(tmp_path: Path) -> None:
    hostile = ["a\x1b[2Jb", "c\nd", os.fsdecode(b"e\xff"), "f" * 250, "\u202eg", "Müller"]
    pets(tmp_path, classes=tuple(hostile))
    data = loaded(tmp_path)
    assert data.num_classes == 6
    for name in data.class_names:
        assert name.isprintable()
        assert len(name) <= 200
        assert json.loads(json.dumps(name)) == name
        assert name.encode()
    assert "Müller" in data.class_names
    np.savez(
        tmp_path / "x.npz",
        images=np.zeros((20, 2, 2), np.uint8),
        labels=np.arange(20) % 2,
        class_names=np.array(["a\x1b", "b" * 10_000]),
    )
    assert [len(name) for name in load_data(f"npz:{tmp_path / 'x.npz'}").class_names] == [5, 200]


def test_hostile_paths_are_escaped_in_messages(tmp_path: Path) -> None:
    folder = pets(tmp_path / os.fsdecode(b"a\xff\x1b\n"))
    (folder / "cat" / "0.png").write_bytes(b"none")
    assert "\\udcff\\x1b\\n/cat/0.png cannot be read as an image" in refused(folder)
