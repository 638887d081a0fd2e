"""Read images from files, with one folder per class."""

import io
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from bayes_share.data.dataset import Split
from bayes_share.data.listing import ENDINGS, Part, list_images
from bayes_share.data.mapped_images import empty_images
from bayes_share.data.source import MixedSizes, Source, from_where
from bayes_share.errors import InputError
from bayes_share.io.reading import check_file, reading
from bayes_share.io.terminal import listed, muted, printable

_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112
_LONGEST_NAME = 200  # characters shown of a file's name
_AHEAD = 64  # images decoded ahead of the one being stored
_MARGIN = 0.875  # the fraction of the shorter side kept by the crop: 224 of 256 pixels
_log = logging.getLogger(__name__)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its errors are also raised, so logging would repeat them


def read_folder(folder: Path, side: int | None = None) -> Source:
    """Read a folder with one folder per class, either directly or in ``train``, ``test`` and optionally ``validation``.

    The parts may have other common names (`PARTS`). Images are grey if all are grey, otherwise all are converted to
    colour. EXIF orientation is applied, transparency is dropped, and only the first frame is read. Skipped files are
    logged in one line. Each file is decoded once. Pixels that do not fit into memory are kept in a memory-mapped file.

    Args:
        folder: the folder that contains ``train`` and ``test``, or the class folders.
        side: height and width in pixels to which images of different sizes, or images that are not square, are resized
            and cropped; see `framed`. Square images of one size are unchanged.

    Raises:
        MixedSizes: the images have different sizes, and no `side` is given.
        InputError: a folder is missing, empty or ambiguous, or an image is unreadable, not 8-bit or found twice.
    """
    if not folder.is_dir():
        raise InputError(
            f"folder:{printable(folder)}: no such folder{from_where(folder)}; "
            f"give one that holds train and test, or one folder per class"
        )
    with reading(folder, "a folder of images"):
        listing = list_images(folder)
    if skipped := listing.skipped_line():
        _log.warning("folder:%s: %s", printable(folder), skipped)
    paths = [path for found in listing.parts.values() for path, _ in found.images]
    reader = _reader(paths, side)
    digest, splits, classes = sha256(), {}, listing.parts["train"].classes
    with muted(), ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow releases the GIL while decoding
        for part, found in listing.parts.items():
            images = empty_images((len(found.images), *reader.shape))
            files = [path for path, _ in found.images]
            decoded = _in_turn(threads, reader.read, files)
            for place, path in enumerate(files):
                with reading(path, "an image"):
                    images[place], of_file = next(decoded)
                digest.update(of_file)
            splits[part] = _split(found, images, classes, folder)
    return Source(splits["train"], splits.get("test"), splits.get("validation"), classes, digest.hexdigest())


def _in_turn(
    threads: ThreadPoolExecutor, read: Callable[[Path], tuple[np.ndarray, bytes]], files: Sequence[Path]
) -> Iterator[tuple[np.ndarray, bytes]]:
    """Yield the results of reading the files in order, reading at most `_AHEAD` files ahead."""
    waiting = deque(threads.submit(read, path) for path in files[:_AHEAD])
    for path in files[_AHEAD:]:
        found = waiting.popleft()
        waiting.append(threads.submit(read, path))
        yield found.result()
    yield from (found.result() for found in waiting)


def framed(image: Image.Image, side: int) -> Image.Image:
    """Resize and crop an image to a square, like torchvision's evaluation presets.

    The shorter side is resized to 8/7 of `side` (256 for 224), with bilinear interpolation and antialiasing, and the
    centre is cropped.
    """
    shorter = round(side / _MARGIN)
    width, height = (int(shorter * size / min(image.size)) for size in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))


class _Header(NamedTuple):
    size: tuple[int, int]  # height and width, after applying the EXIF orientation
    is_colour: bool


def _reader(paths: Sequence[Path], side: int | None) -> "_Reader":
    """Return a reader that gives all images the same shape.

    Raises:
        MixedSizes: the images have different sizes, and no `side` is given.
        InputError: an image is unreadable or not 8-bit.
    """
    formats = _formats()
    headers = [_header(path, formats) for path in paths]
    is_colour = any(header.is_colour for header in headers)
    first = headers[0].size
    other = next((place for place, header in enumerate(headers) if header.size != first), None)
    if other is not None and side is None:
        found = headers[other].size
        raise MixedSizes(
            f"{printable(paths[other])}: the image is {found[1]} x {found[0]} pixels, but {printable(paths[0])} "
            f"is {first[1]} x {first[0]}; give an image size, such as --image-size 224, to resize and crop all "
            "of them"
        )
    frame = side if side is not None and (other is not None or first[0] != first[1]) else None
    return _Reader(formats, is_colour, first if frame is None else (frame, frame), frame)


def _header(path: Path, formats: list[str]) -> _Header:
    check_file(path, "an image")
    with reading(path, "an image"), muted(), path.open("rb") as file, _opened(file, formats) as image:
        if image.mode not in _GREY | _COLOUR:
            mode = f"{printable(path)}: the image has mode {image.mode}"
            raise InputError(f"{mode}; save it with 8 bits per channel, grey or RGB")
        is_colour = image.mode not in _GREY
        # Some of Pillow's readers rotate an image themselves, and then report the rotated size.
        width, height = _upright(image).size if _is_turned(image) else image.size
        return _Header((height, width), is_colour)


class _Reader(NamedTuple):
    """Reads image files as arrays of the same shape, reading each file once."""

    formats: list[str]
    is_colour: bool
    size: tuple[int, int]
    side: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image, ``[channel, height, width]``."""
        return (3 if self.is_colour else 1, *self.size)

    def read(self, path: Path) -> tuple[np.ndarray, bytes]:
        """Return the pixels of an image, and the bytes to add to the digest of all files."""
        content = path.read_bytes()
        with _opened(io.BytesIO(content), self.formats) as image:
            upright = _upright(image).convert("RGB" if self.is_colour else "L")
            pixels = np.asarray(upright if self.side is None else framed(upright, self.side))
        pixels = pixels.transpose(2, 0, 1) if self.is_colour else pixels[None]
        if pixels.shape != self.shape:
            raise ValueError("its size differs from its header")
        return pixels, b"%d " % len(content) + content


def _opened(file: io.BufferedReader | io.BytesIO, formats: list[str]) -> Image.Image:
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        raise ValueError("its format is not supported") from None


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION) in _TURNED
    except Exception:  # as in `_upright`
        return False


def _formats() -> list[str]:
    """Return Pillow's formats for `ENDINGS`. By default Pillow opens more, some of them with external programs."""
    Image.init()
    return sorted({name for ending, name in Image.EXTENSION.items() if ending in ENDINGS and name in Image.OPEN})


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF data: use the image as stored, like other programs
        return image


def _split(part: Part, images: np.ndarray, classes: tuple[str, ...], folder: Path) -> Split:
    """Label the images of a part by the training classes. The part need not contain every class."""
    for name in part.classes:
        if name not in classes:
            known = listed(classes)
            raise InputError(f"{printable(part.root)}: there is a class {name!r}, but training has only {known}")
    labels = np.array([classes.index(name) for _, name in part.images], np.int64)
    names = tuple(printable(os.path.relpath(path, folder), _LONGEST_NAME) for path, _ in part.images)
    return Split(torch.from_numpy(images), torch.from_numpy(labels), names)
