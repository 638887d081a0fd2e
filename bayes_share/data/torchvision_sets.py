"""Read data sets through torchvision, which downloads them once and verifies their checksums."""

from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from bayes_share.data.dataset import Split
from bayes_share.data.source import Source, checked_split
from bayes_share.errors import InputError
from bayes_share.io.terminal import printable

_LONGEST_REASON = 200  # characters
_CLASSES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "cifar10": ("CIFAR10", {"train": True}, {"train": False}),
    "cifar100": ("CIFAR100", {"train": True}, {"train": False}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
    "mnist": ("MNIST", {"train": True}, {"train": False}),
    "fashion_mnist": ("FashionMNIST", {"train": True}, {"train": False}),
}


def read_torchvision(name: str, data_dir: Path, download: bool = True) -> Source:
    """Read a data set of torchvision.

    Args:
        name: ``cifar10``, ``cifar100``, ``svhn``, ``mnist`` or ``fashion_mnist``.
        data_dir: the folder of its files.
        download: whether to download missing files.

    Raises:
        InputError: files are missing and were not downloaded, or are damaged.

    """
    class_name, *parts = _CLASSES[name]
    where = printable(str(data_dir))
    try:
        train, test = (getattr(datasets, class_name)(str(data_dir), download=download, **part) for part in parts)
        return Source(_in_memory(train, name), _in_memory(test, name), class_names=tuple(getattr(train, "classes", ())))
    except Exception as error:  # no network, a wrong checksum, a full disk, a truncated file and more
        if not download:
            raise InputError(f"{name}: not found, or incomplete, in '{where}'") from error
        reason = printable(" ".join(f"{type(error).__name__}: {error}".split()), _LONGEST_REASON)
        raise InputError(
            f"{name}: not found in '{where}' and not downloaded ({reason}); check the network and the disk, and "
            "delete damaged files there"
        ) from error


def _in_memory(dataset: Any, name: str) -> Split:
    """Read all images through ``dataset[i]``, since the classes of torchvision store their arrays differently."""
    images, labels = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    return checked_split(np.stack([np.asarray(image) for image in images]), np.array(labels), name)
