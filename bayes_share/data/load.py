"""From the name of a data set to the data set."""

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
"""The data sets that torchvision downloads, and their usual augmentation: digits have no mirror image."""

_LONGEST_NAME = 200  # characters of a class's name

KNOWN = ("digits", *DOWNLOADED, "npz:DIR", "npz:FILE", "folder:DIR")
"""What the name of a data set of images may be."""


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
    """Read a data set into memory, as uint8 on the CPU, in three parts.

    Where a set has no validation part, a tenth of its training images is held out, by class; one that is not divided
    at all is divided 70/10/20. The test part chooses nothing.

    Args:
        name: ``digits`` (in scikit-learn, without a download); ``cifar10``, ``cifar100``, ``svhn``, ``mnist`` or
            ``fashion_mnist`` (downloaded once by torchvision); ``npz:DIR``, a folder with ``train.npz``, ``test.npz``
            and perhaps ``validation.npz``; ``npz:FILE``, one file, perhaps with an array ``split``; ``folder:DIR``, a
            folder per class, directly or in ``train``, ``test`` and perhaps ``validation``. Parts may also be called
            ``training``, ``testing``, ``val`` or ``valid``.
        data_dir: where downloads are kept.
        split_seed: what is held out depends on this number and on nothing else, in particular not on a run's seed.
        augment: ``none``, ``flip``, ``crop`` or ``flip-crop``; ``auto`` is what is usual for the set: ``flip-crop`` for
            CIFAR, ``crop`` for other downloads, and ``none`` for everything else. Or a function of one image, uint8
            ``[channel, height, width]``, such as one of torchvision's transforms, which draws from torch's generator.
        hold_out: classes that are left out of all three parts; the other ones are numbered anew, in their order. Test
            images of the classes that are left out are kept as ``held_out``.
        download: whether a set of torchvision's is downloaded where it is not there.
        train_images: a random part of so many training images, by class, drawn by `split_seed` after validation images
            were set aside; validation and test stay whole. None: all.
        image_size: height and width that images are brought to: pictures of a folder that are of several sizes, or not
            square, are resized and cropped (`framed`), others are averaged down. None: as they are stored.
        train_on_validation: whether validation images become training images too, as in the runs of many published
            figures. The validation part is then empty.

    Returns:
        the data, with the moments of its training pixels.

    Raises:
        InputError: if the name is unknown, what it names is missing, damaged or of another form, a class to leave out
            does not exist, fewer than two would be left, or images cannot be so many or so large.
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
    """What is stored under the name of a data set, before it is divided.

    Args:
        name: as `load_data` takes it.
        data_dir: where downloads are kept.
        download: whether a set of torchvision's is downloaded where it is not there.
        side: as of `read_folder`; other sets hold images of one size.

    Raises:
        InputError: if the name is unknown, or what it names is missing, damaged or of another form.
    """
    with reading(name, "a data set"):
        return _read(name, Path(data_dir).expanduser(), download, side)


def unknown_data_set(name: str) -> InputError:
    """The error for a name of no data set: with the kind before it that a file or a folder lacks, or the nearest name.

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
        hint = f"give folders with a prefix: folder:{shown} for pictures, npz:{shown} for .npz files, or  "
        hint += f"tables, csv:{shown}"
    else:
        return unknown("data set", name, (*KNOWN, "csv:FILE"))
    return InputError(f"unknown data set {printable(name)!r}: {hint}")


def is_known(name: str) -> bool:
    """Whether the name of a data set is of one of the forms that there are."""
    kind, _, path = name.partition(":")
    return name in ("digits", *DOWNLOADED) or (kind in ("npz", "folder", "csv") and bool(path))


def short_name(name: str) -> str:
    """A data set's name without the folders that it lies in.

    >>> short_name("npz:/home/me/cats.npz"), short_name("cifar10")
    ('cats', 'cifar10')
    """
    kind, _, path = name.partition(":")
    return Path(path).stem if path else kind


def _read(name: str, data_dir: Path, download: bool, side: int | None) -> Source:
    """Torchvision and Pillow are imported only for the sets that need them."""
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
    """Names of folders and strings of files may be any: from here on they can be shown and written, and all differ."""
    names = source.class_names or tuple(map(str, range(num_classes)))
    if len(names) != num_classes:
        raise InputError(f"{where}: there are {len(names)} class names, but {num_classes} classes among the labels")
    different = names if len(set(names)) == num_classes else [f"{name} ({i})" for i, name in enumerate(names)]
    return tuple(distinct(different, _LONGEST_NAME).values())
