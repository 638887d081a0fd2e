"""Data as found by a reader, and their division into three consistent parts."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Generator, Tensor

from bayes_share.data.dataset import Split
from bayes_share.data.mapped_images import joined_images
from bayes_share.errors import InputError
from bayes_share.io.terminal import printable
from bayes_share.tensors.seeding import generator

_LONGEST_TYPE = 100  # characters of an array's dtype


@dataclass(frozen=True, eq=False)
class Source:
    """The data that a reader found.

    Attributes:
        train: the training images, or all images if there is no test set.
        test: the test set, or None.
        validation: the validation set, or None.
        class_names: one per class, or empty if the classes have no names.
        files: a digest of the files that images were decoded from, or empty if pixels were stored.
    """

    train: Split
    test: Split | None = None
    validation: Split | None = None
    class_names: tuple[str, ...] = ()
    files: str = ""


class MixedSizes(InputError):
    """The images have different sizes, and no size was given."""


def from_where(path: Path) -> str:
    """Return a hint to append to a message about a missing path, if the path is relative."""
    return "" if path.is_absolute() else " (a relative path is one from the current folder)"


def checked_images(images: np.ndarray, where: str) -> UInt8[Tensor, "image channel height width"]:
    """Validate an array of images and convert it to channels first.

    Args:
        images: uint8 ``[image, height, width, channel]``, or ``[image, height, width]`` for one channel.
        where: the file or folder they come from, for messages.

    Raises:
        InputError: the array has another dtype or shape, or is empty.
    """
    if images.dtype != np.uint8:
        found = printable(images.dtype, _LONGEST_TYPE)
        raise InputError(f"{where}: images are {found}, but must be uint8 with values from 0 to 255")
    if images.ndim not in (3, 4):
        raise InputError(f"{where}: images have shape {images.shape}, but must be [N, H, W] or [N, H, W, C]")
    if 0 in images.shape:
        raise InputError(f"{where}: images have shape {images.shape}, but at least one image with a pixel is needed")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise InputError(f"{where}: images have shape {images.shape}: the channels come last, [N, H, W, C]")
    channels_first = images.reshape(*images.shape[:3], -1).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(channels_first))


def checked_split(images: np.ndarray, labels: np.ndarray, where: str) -> Split:
    """Validate arrays of images and labels and convert them to a `Split`.

    Args:
        images: an array that `checked_images` accepts.
        labels: integers ``[image]``, from 0.
        where: the file or folder they come from, for messages.

    Raises:
        InputError: an array has another dtype or shape, or a label is out of range.
    """
    pixels = checked_images(images, where)
    if labels.dtype.kind not in "iu":
        raise InputError(f"{where}: labels are {printable(labels.dtype, _LONGEST_TYPE)}, but must be integers")
    if labels.shape != images.shape[:1]:
        raise InputError(f"{where}: labels have shape {labels.shape}, but must be one for each of {len(images)} images")
    if labels.min() < 0:
        raise InputError(f"{where}: there is a label {labels.min()}, but classes are counted from 0")
    if labels.max() > np.iinfo(np.int64).max:
        raise InputError(f"{where}: there is a label {labels.max()}, but classes are numbered from 0 without gaps")
    return Split(pixels, torch.from_numpy(labels.astype(np.int64)))


def three_parts(source: Source, split_seed: int, where: str) -> tuple[Split, Split, Split]:
    """Return the training, validation and test set. Missing sets are split off, stratified by class.

    Without a test set, all images are split 70/10/20. Without a validation set, a tenth of the training images is held
    out.

    Args:
        source: the data that a reader found.
        split_seed: the seed of the split, which depends on nothing else but the labels.
        where: the data set, for messages.

    Raises:
        InputError: the parts differ in classes or shapes, or there are too few images to split.
    """
    rng = generator(split_seed, "split")
    if source.test is None:
        train, validation, test = _divide(source.train, (7, 1, 2), rng, where)
    elif source.validation is None:
        train, validation = _divide(source.train, (9, 1), rng, where)
        test = source.test
    else:
        train, validation, test = source.train, source.validation, source.test
    _check_classes(train, {"validation": validation, "test": test}, where)
    _check_shapes(train, {"validation": validation, "test": test}, where)
    return train, validation, test


def joined(one: Split, other: Split) -> Split:
    """Return all images of two parts of a data set as one part."""
    names = None if one.names is None or other.names is None else (*one.names, *other.names)
    return Split(joined_images(one.images, other.images), torch.cat([one.labels, other.labels]), names)


def stratified(labels: Int64[Tensor, "image"], shares: tuple[int, ...], rng: Generator) -> list[Int64[Tensor, "_"]]:
    """Split indices at random so that each part has its share of each class, to within one image.

    Remaining images go to the largest remainders, or to the earlier part in a tie. A class with too few images for all
    parts is in the part with the largest share first.

    Args:
        labels: ``[image]``, the classes.
        shares: the relative sizes of the parts, for example ``(7, 1, 2)``.
        rng: the random generator.

    Returns:
        The indices ``[part]`` of each part, in ascending order.
    """
    shuffled = torch.randperm(len(labels), generator=rng, device="cpu")
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.unique(return_counts=True)[1].tolist()
    pieces = [group.split(_sizes(len(group), shares)) for group in by_class.split(counts)]
    return [torch.cat(part).sort().values for part in zip(*pieces, strict=True)]


def _sizes(count: int, shares: tuple[int, ...]) -> list[int]:
    whole = sum(shares)
    sizes = [count * share // whole for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda part: -(count * shares[part] % whole))
    for part in by_remainder[: count - sum(sizes)]:
        sizes[part] += 1
    return sizes


def _divide(split: Split, shares: tuple[int, ...], rng: Generator, where: str) -> list[Split]:
    parts = stratified(split.labels, shares, rng)
    if not all(len(part) for part in parts):
        ratio = "/".join(str(10 * share) for share in shares)
        raise InputError(
            f"{where}: {len(split)} images are too few to divide {ratio} within each class; "
            f"10 of a class are enough, or give all parts yourself"
        )
    return [split.at(part) for part in parts]


def _check_classes(train: Split, others: dict[str, Split], where: str) -> None:
    known = train.labels.unique().tolist()
    if len(known) < 2:
        raise InputError(f"{where}: all training labels are {known[0]}, but at least two classes are needed")
    missing = next((low + 1 for low, high in pairwise([-1, *known]) if high > low + 1), None)
    if missing is not None:
        raise InputError(
            f"{where}: labels go up to {known[-1]}, but no training image has label {missing}; "
            f"number the classes from 0 without gaps"
        )
    for part, split in others.items():
        largest = int(split.labels.max())
        if largest > known[-1]:
            raise InputError(
                f"{where}: {part} has a label {largest}, but training has only the labels 0 to {known[-1]}"
            )


def _check_shapes(train: Split, others: dict[str, Split], where: str) -> None:
    expected = _shape(train)
    for part, split in others.items():
        if _shape(split) != expected:
            raise InputError(
                f"{where}: images are {_shape(split)} (H x W x C) in {part} but {expected} in training; make them equal"
            )


def _shape(split: Split) -> str:
    channels, height, width = split.images.shape[1:]
    return f"{height} x {width} x {channels}"
