"""Images as files in one folder per class."""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

from bayes_share.data.dataset import Split
from bayes_share.data.source import Source, checked_split, from_where
from bayes_share.errors import InputError

_PARTS = ("train", "validation", "test")
_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_folder(folder: Path) -> Source:
    """One folder per class, in ``train``, ``test`` and, if there is one, ``validation``; or directly.

    Images are grey if all are, else all are colour. All must have one size. Transparency is dropped.

    Args:
        folder: the one that has ``train`` and ``test``, or the classes, in it.

    Raises:
        InputError: if a folder is missing or empty, or an image is unreadable, of another size or not of 8 bits.
    """
    if not folder.is_dir():
        raise InputError(
            f"folder:{folder}: no such folder{from_where(folder)}; "
            f"give one that holds train and test, or one folder per class"
        )
    parts = {part: folder / part for part in _PARTS if (folder / part).is_dir()}
    if parts.keys() & {"train", "test"} == {"train", "test"}:
        listings = {part: _listing(path) for part, path in parts.items()}
    elif parts:
        raise InputError(f"folder:{folder}: it has {', '.join(parts)}, but needs both train and test")
    else:
        listings = {"train": _listing(folder)}
    class_names = listings["train"].classes
    mode = _common_mode([path for listing in listings.values() for path, _ in listing.samples])
    splits = {part: _in_memory(listing, class_names, mode) for part, listing in listings.items()}
    return Source(**splits, class_names=tuple(class_names))


def _listing(root: Path) -> ImageFolder:
    try:
        return ImageFolder(str(root))
    except FileNotFoundError as error:
        raise InputError(
            f"{root}: {' '.join(str(error).split()).rstrip('.')}; it needs one folder with images per class"
        ) from error


def _common_mode(paths: list[str]) -> str:
    """What all images are read as; looks at their headers only."""
    modes: dict[str, str] = {}
    sizes: dict[tuple[int, int], str] = {}
    for path in paths:
        with _opened(path) as image:
            modes.setdefault(image.mode, path)
            sizes.setdefault(image.size, path)
    for mode, path in modes.items():
        if mode not in _GREY | _COLOUR:
            raise InputError(f"{path}: the image has mode {mode}; save it with 8 bits per channel, grey or RGB")
    if len(sizes) > 1:
        ((width, height), first), ((other_width, other_height), other) = list(sizes.items())[:2]
        raise InputError(
            f"{other}: the image is {other_width} x {other_height} pixels, but {first} is {width} x {height}; "
            f"bring all to one size"
        )
    return "L" if modes.keys() <= _GREY else "RGB"


def _in_memory(listing: ImageFolder, class_names: list[str], mode: str) -> Split:
    """By name of the class, because torchvision numbers the classes of each root by themselves."""
    for name in listing.classes:
        if name not in class_names:
            raise InputError(
                f"{listing.root}: there is a class {name!r}, but training has only {', '.join(class_names)}"
            )
    images = np.stack([_pixels(path, mode) for path, _ in listing.samples])
    labels = np.array([class_names.index(listing.classes[label]) for _, label in listing.samples])
    return checked_split(images, labels, listing.root)


def _pixels(path: str, mode: str) -> np.ndarray:
    with _opened(path) as image:
        try:
            return np.asarray(image.convert(mode))
        except _UNREADABLE as error:
            raise InputError(_unreadable(path, error)) from error


def _opened(path: str) -> Image.Image:
    try:
        return Image.open(path)
    except _UNREADABLE as error:
        raise InputError(_unreadable(path, error)) from error


def _unreadable(path: str, error: Exception) -> str:
    return f"{path}: this cannot be read as an image ({' '.join(str(error).split())})"
