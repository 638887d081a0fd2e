"""From the name of a data set to the data set."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from bayes_share.data.augmentation import AUGMENTATIONS
from bayes_share.data.dataset import Data, Split, pixel_moments
from bayes_share.data.digits import read_digits
from bayes_share.data.hold_out import hold_out_classes
from bayes_share.data.npz import read_npz
from bayes_share.data.source import Source, three_parts
from bayes_share.errors import InputError, unknown

DOWNLOADED = {
    "cifar10": "flip-crop",
    "cifar100": "flip-crop",
    "svhn": "crop",
    "mnist": "crop",
    "fashion_mnist": "crop",
}
"""The data sets that torchvision downloads, and their usual augmentation: digits have no mirror image."""

KNOWN = ("digits", *DOWNLOADED, "npz:DIR", "npz:FILE", "folder:DIR")
"""What the name of a data set may be."""


def load_data(
    name: str,
    data_dir: str | Path = "data",
    split_seed: int = 0,
    augment: str = "auto",
    hold_out: tuple[int, ...] = (),
    download: bool = True,
) -> Data:
    """Read a data set into memory, as uint8 on the CPU, in three parts.

    Where a set has no validation part, a tenth of its training images is held out, by class; one that is not divided
    at all is divided 70/10/20. The test part chooses nothing.

    Args:
        name: ``digits`` (in scikit-learn, without a download); ``cifar10``, ``cifar100``, ``svhn``, ``mnist`` or
            ``fashion_mnist`` (downloaded once by torchvision); ``npz:DIR``, a folder with ``train.npz``, ``test.npz``
            and perhaps ``validation.npz``; ``npz:FILE``, one file, perhaps with an array ``split``; ``folder:DIR``, a
            folder per class, directly or in ``train``, ``test`` and perhaps ``validation``.
        data_dir: where downloads are kept.
        split_seed: what is held out depends on this number and on nothing else, in particular not on a run's seed.
        augment: ``none``, ``crop`` or ``flip-crop``; ``auto`` is what is usual for the set: ``flip-crop`` for CIFAR,
            ``crop`` for other downloads, and ``none`` for everything else.
        hold_out: classes that are left out of all three parts; the other ones are numbered anew, in their order. Test
            images of the classes that are left out are kept as ``held_out``.
        download: whether a set of torchvision's is downloaded where it is not there.

    Returns:
        the data, with the moments of its training pixels.

    Raises:
        InputError: if the name is unknown, what it names is missing, damaged or of another form, a class to leave out
            does not exist, or fewer than two would be left.
    """
    if augment not in ("auto", *AUGMENTATIONS):
        raise unknown("augmentation", augment, ("auto", *AUGMENTATIONS))
    source = read_source(name, Path(data_dir).expanduser(), download)
    train, validation, test = three_parts(source, split_seed, name)
    class_names = _class_names(source, int(train.labels.max()) + 1, name)
    held_out = None
    if hold_out:
        (train, validation, test), class_names, held_out = hold_out_classes(
            (train, validation, test), class_names, hold_out, name
        )
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
        held_out=held_out,
        digest=_digest(train, validation, test),
    )


def _digest(*parts: Split) -> str:
    digest = sha256()
    for part in parts:
        for values in (part.images, part.labels):
            digest.update(repr(tuple(values.shape)).encode())
            digest.update(np.ascontiguousarray(values.numpy()).data)
    return digest.hexdigest()


def read_source(name: str, data_dir: Path, download: bool = True) -> Source:
    """What is stored under the name of a data set, before it is divided.

    Args:
        name: as `load_data` takes it.
        data_dir: where downloads are kept.
        download: whether a set of torchvision's is downloaded where it is not there.

    Raises:
        InputError: if the name is unknown, or what it names is missing, damaged or of another form.
    """
    try:
        return _read(name, data_dir, download)
    except OSError as error:
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error


def short_name(name: str) -> str:
    """A data set's name without the folders that it lies in.

    >>> short_name("npz:/home/me/cats.npz"), short_name("cifar10")
    ('cats', 'cifar10')
    """
    kind, _, path = name.partition(":")
    return Path(path).stem if path else kind


def _read(name: str, data_dir: Path, download: bool) -> Source:
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

        return read_folder(Path(path).expanduser())
    raise unknown("data set", name, KNOWN)


def _class_names(source: Source, num_classes: int, where: str) -> tuple[str, ...]:
    names = source.class_names or tuple(map(str, range(num_classes)))
    if len(names) != num_classes:
        raise InputError(f"{where}: there are {len(names)} class names, but {num_classes} classes among the labels")
    return names
