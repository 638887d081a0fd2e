"""Images as files in one folder per class."""

import io
import logging
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from bayes_share.data.dataset import Split
from bayes_share.data.listing import ENDINGS, Part, list_images
from bayes_share.data.source import Source, checked_split, from_where
from bayes_share.errors import InputError
from bayes_share.reading import check_file, reading
from bayes_share.terminal import listed, muted, printable

_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
_log = logging.getLogger(__name__)
logging.getLogger("PIL").addHandler(logging.NullHandler())  # its errors are raised too, and would be shown twice


def read_folder(folder: Path) -> Source:
    """One folder per class, in ``train``, ``test`` and, if there is one, ``validation``; or directly.

    The parts may have other usual names (`PARTS`). Images are grey if all are, else all are colour. All must have one
    size, upright as their EXIF data say. Transparency is dropped, and of several frames the first is read. What is
    skipped is logged, in one line.

    Args:
        folder: the one that has ``train`` and ``test``, or the classes, in it.

    Raises:
        InputError: if a folder is missing or empty or can be understood in two ways, or an image is unreadable, of
            another size, not of 8 bits or there twice.
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
    images = _Images()
    pixels = {part: [images.read(path) for path, _ in found.images] for part, found in listing.parts.items()}
    classes = listing.parts["train"].classes
    splits = {part: _split(found, images.alike(pixels.pop(part)), classes) for part, found in listing.parts.items()}
    files = images.digest.hexdigest()
    return Source(splits["train"], splits.get("test"), splits.get("validation"), classes, files)


class _Images:
    """Images that are read one after the other, each file once, and must have one size.

    Attributes:
        digest: of the bytes of all files so far.
    """

    def __init__(self) -> None:
        self.digest = sha256()
        self._formats = _formats()
        self._first: tuple[Path, tuple[int, ...]] | None = None
        self._is_colour = False

    def read(self, path: Path) -> np.ndarray:
        """The pixels of an image ``[height, width]`` or, of a coloured one, ``[height, width, 3]``."""
        check_file(path, "an image")
        with reading(path, "an image"):
            content = path.read_bytes()
            self.digest.update(b"%d " % len(content))
            self.digest.update(content)
            with muted(), self._opened(content) as image:
                if image.mode not in _GREY | _COLOUR:
                    mode = f"{printable(path)}: the image has mode {image.mode}"
                    raise InputError(f"{mode}; save it with 8 bits per channel, grey or RGB")
                is_colour = image.mode not in _GREY
                pixels = np.asarray(_upright(image).convert("RGB" if is_colour else "L"))
        self._is_colour |= is_colour
        self._check_size(path, pixels.shape[:2])
        return pixels

    def alike(self, pixels: list[np.ndarray]) -> np.ndarray:
        """Images that were read as one array, all in colour where any that was read is."""
        if not self._is_colour:
            return np.stack(pixels)
        return np.stack([np.stack([image] * 3, axis=-1) if image.ndim == 2 else image for image in pixels])

    def _opened(self, content: bytes) -> Image.Image:
        try:
            return Image.open(io.BytesIO(content), formats=self._formats)
        except UnidentifiedImageError:
            raise ValueError("it is of no format that is known") from None

    def _check_size(self, path: Path, size: tuple[int, ...]) -> None:
        first, expected = self._first = self._first or (path, size)
        if size != expected:
            raise InputError(
                f"{printable(path)}: the image is {size[1]} x {size[0]} pixels, but {printable(first)} is "
                f"{expected[1]} x {expected[0]}; bring all to one size"
            )


def _formats() -> list[str]:
    """Of the endings, as far as this Pillow has them. By default it opens more, and runs other programs for some."""
    Image.init()
    return sorted({name for ending, name in Image.EXTENSION.items() if ending in ENDINGS and name in Image.OPEN})


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that cannot be read say nothing; any other program shows the image as it is stored
        return image


def _split(part: Part, images: np.ndarray, classes: tuple[str, ...]) -> Split:
    """Labels by name of the class in training, as another part may not have all of them."""
    for name in part.classes:
        if name not in classes:
            known = listed(classes)
            raise InputError(f"{printable(part.root)}: there is a class {name!r}, but training has only {known}")
    labels = np.array([classes.index(name) for _, name in part.images])
    return checked_split(images, labels, printable(part.root))
