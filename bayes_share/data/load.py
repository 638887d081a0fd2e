"""Load a data set of images by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bayes_share.data.augmentation import AUGMENTATIONS
from bayes_share.data.dataset import Data, pixel_moments
from bayes_share.data.digest import digest_of
from bayes_share.data.digits import read_digits
from bayes_share.data.hold_out import hold_out_classes
from bayes_share.data.npz import read_npz
from bayes_share.data.parts import TABLE_ENDINGS
from bayes_share.data.reduction import averaged, some_of
from bayes_share.data.source import Source, joined, three_parts
from bayes_share.errors import InputError, unknown
from bayes_share.io.reading import reading
from bayes_share.io.terminal import distinct, printable
from bayes_share.tensors.seeding import generator

DOWNLOADED = {
    "cifar10": "flip-crop",
    "cifar100": "flip-crop",
    "svhn": "crop",
    "mnist": "crop",
    "fashion_mnist": "crop",
}
"""The data sets that torchvision downloads, and their default augmentation. Digits must not be flipped."""

_LONGEST_NAME = 200  # characters of a class name

KNOWN = ("digits", *DOWNLOADED, "npz:DIR", "npz:FILE", "folder:DIR")
"""The possible names of image data sets."""


def load_data(
    name: str,
    data_dir: str | Path = "data",
    split_seed: int = 0,
    augment: str | Callable[[Tensor], Tensor] = "auto",
    hold_out: tuple[int, ...] = (),
    download: bool = True,
    train_images: int | None = None,
    image_size: int | None = None,
    train_on_validation: bool = False,
) -> Data:
    """Load a data set as uint8 images on the CPU, in three parts.

    If a data set has no validation part, a tenth of its training images is held out, stratified by class. A data set
    that is not split at all is split 70/10/20. The test part is used for evaluation only.

    Args:
        name: ``digits`` (included in scikit-learn); ``cifar10``, ``cifar100``, ``svhn``, ``mnist`` or
            ``fashion_mnist`` (downloaded once by torchvision); ``npz:DIR``, a folder with ``train.npz``, ``test.npz``
            and optionally ``validation.npz``; ``npz:FILE``, a single file, optionally with an array ``split``;
            ``folder:DIR``, one folder per class, either directly or in ``train``, ``test`` and optionally
            ``validation``. Parts may also be called ``training``, ``testing``, ``val`` or ``valid``.
        data_dir: the folder for downloads.
        split_seed: the seed of the split. The split does not depend on a run's seed.
        augment: ``none``, ``flip``, ``crop`` or ``flip-crop``. ``auto`` is the usual choice for the data set:
            ``flip-crop`` for CIFAR, ``crop`` for other downloads, and ``none`` for everything else. Or a function of
            one image, uint8 ``[channel, height, width]``, such as a torchvision transform, which draws from torch's
            global generator.
        hold_out: classes to remove from all three parts; the others are renumbered in order. Test images of the
            removed classes are kept as ``held_out``.
        download: whether to download a missing torchvision data set.
        train_images: the number of training images to draw after the split, stratified by class and seeded by
            `split_seed`; validation and test parts are unchanged. None: all.
        image_size: the height and width of the images. Images of a folder that have different sizes or are not square
            are resized and cropped (`framed`); others are averaged down. None: the stored size.
        train_on_validation: whether to add the validation images to the training images, as many published results
            do. The validation part is then empty.

    Returns:
        The data, with the mean and standard deviation of the training pixels.

    Raises:
        InputError: the name is unknown; the files are missing, damaged or of another format; a held-out class does not
            exist, or fewer than two classes remain; or `train_images` or `image_size` is out of range.
    """
    transform, augment = (None, augment) if isinstance(augment, str) else (augment, "none")
    if augment not in ("auto", *AUGMENTATIONS):
        raise unknown("augmentation", augment, ("auto", *AUGMENTATIONS))
    source, where = read_source(name, data_dir, download, image_size), printable(name)
    train, validation, test = three_parts(source, split_seed, where)
    class_names = _class_names(source, int(train.labels.max()) + 1, where)
    held_out = None
    if hold_out:
        (train, validation, test), class_names, held_out = hold_out_classes(
            (train, validation, test), class_names, hold_out, where
        )
    if train_on_validation:
        train, validation = joined(train, validation), validation.at(torch.arange(0))
    if train_images is not None:
        train = some_of(train, train_images, generator(split_seed, "training images"), where)
    stored_size = train.images.shape[2:]
    if image_size is not None:
        train, validation, test = (
            replace(part, images=averaged(part.images, image_size, where)) for part in (train, validation, test)
        )
        held_out = None if held_out is None else averaged(held_out, image_size, where)
    is_smaller = train.images.shape[2:] != stored_size
    mean, std = pixel_moments(train.images)
    return Data(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=class_names,
        mean=mean,
        std=std,
        augment=DOWNLOADED.get(name, "none") if augment == "auto" else augment,
        transform=transform,
        held_out=held_out,
        digest=digest_of(source),
        averaged_from=(stored_size[0], stored_size[1]) if is_smaller else None,
    )


def read_source(name: str, data_dir: str | Path, download: bool = True, side: int | None = None) -> Source:
    """Read a data set by name, before it is split.

    Args:
        name: a name that `load_data` accepts.
        data_dir: the folder for downloads.
        download: whether to download a missing torchvision data set.
        side: see `read_folder`; ignored for other kinds of data set, whose images have one size.

    Raises:
        InputError: the name is unknown, or the files are missing, damaged or of another format.
    """
    with reading(name, "a data set"):
        return _read(name, Path(data_dir).expanduser(), download, side)


def unknown_data_set(name: str) -> InputError:
    """Return the error for an unknown data set. The message suggests the missing prefix of a path, or a similar name.

    >>> print(unknown_data_set("houses.csv"))
    unknown data set 'houses.csv': give tables with the prefix csv:, csv:houses.csv
    >>> print(unknown_data_set("cifar11"))  # doctest: +ELLIPSIS
    unknown data set 'cifar11': did you mean 'cifar10'? Choose from cifar10, ..., npz:FILE, svhn
    """
    path = name.partition(":")[2] or name
    ending, shown = Path(path).suffix.lower(), printable(path)
    if ending in TABLE_ENDINGS:
        hint = f"give tables with the prefix csv:, csv:{shown}"
    elif ending == ".npz":
        hint = f"give .npz files with the prefix npz:, npz:{shown}"
    elif path and Path(path).expanduser().is_dir():
        hint = f"give folders with a prefix: folder:{shown} for pictures, npz:{shown} for .npz files, or "
        hint += f"csv:{shown} for tables"
    else:
        return unknown("data set", name, (*KNOWN, "csv:FILE"))
    return InputError(f"unknown data set {printable(name)!r}: {hint}")


def is_known(name: str) -> bool:
    """Return whether the name of a data set has a known form. The files need not exist."""
    kind, _, path = name.partition(":")
    return name in ("digits", *DOWNLOADED) or (kind in ("npz", "folder", "csv") and bool(path))


def short_name(name: str) -> str:
    """Return the name of a data set without prefix, folders and file ending.

    >>> short_name("npz:/home/me/cats.npz"), short_name("cifar10")
    ('cats', 'cifar10')
    """
    kind, _, path = name.partition(":")
    return Path(path).stem if path else kind


def _read(name: str, data_dir: Path, download: bool, side: int | None) -> Source:
    """Read a data set, importing torchvision and Pillow only for data sets that need them."""
    kind, _, path = name.partition(":")
    if name == "digits":
        return read_digits()
    if name in DOWNLOADED:
        from bayes_share.data.torchvision_sets import read_torchvision

        return read_torchvision(name, data_dir, download)
    if kind == "npz" and path:
        return read_npz(Path(path).expanduser())
    if kind == "folder" and path:
        from bayes_share.data.folder import read_folder

        return read_folder(Path(path).expanduser(), side)
    if kind == "csv" and path:
        raise InputError(f"{printable(name)} is a table, and images are required here")
    raise unknown_data_set(name)


def _class_names(source: Source, num_classes: int, where: str) -> tuple[str, ...]:
    """Return printable and distinct class names. Names of folders and strings in files may be neither."""
    names = source.class_names or tuple(map(str, range(num_classes)))
    if len(names) != num_classes:
        raise InputError(f"{where}: there are {len(names)} class names, but {num_classes} classes among the labels")
    different = names if len(set(names)) == num_classes else [f"{name} ({i})" for i, name in enumerate(names)]
    return tuple(distinct(different, _LONGEST_NAME).values())
