"""CIFAR-10-C: the test images of CIFAR-10 under 19 corruptions at 5 severities, from the official files."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from bayes_share.data.dataset import Data, Split
from bayes_share.errors import InputError, unknown
from bayes_share.io.reading import check_file, reading
from bayes_share.io.terminal import printable

CIFAR10C_TYPES = (
    "brightness",
    "contrast",
    "defocus_blur",
    "elastic_transform",
    "fog",
    "frost",
    "gaussian_blur",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "saturate",
    "shot_noise",
    "snow",
    "spatter",
    "speckle_noise",
    "zoom_blur",
)
"""All types of corruption in the benchmark."""

CIFAR10C_EXTRA = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
"""The types meant for validation. The benchmark's means are over the other 15."""

_IMAGES = 10_000  # per severity
_SEVERITIES = 5


def read_cifar10c(
    folder: str | Path, corruption: str, severity: int, indices: Int64[Tensor, "image"] | None = None
) -> Split:
    """Read the images of one corruption and severity, in the order of CIFAR-10's test images.

    Source: Hendrycks and Dietterich (2019), arXiv 1903.12261. The files are from doi:10.5281/zenodo.2535967:
    ``TYPE.npy``, uint8 ``[50000, 32, 32, 3]``, with 10,000 consecutive images per severity, and ``labels.npy``. Only
    the selected images are read into memory.

    Args:
        folder: the folder with the files.
        corruption: one of `CIFAR10C_TYPES`.
        severity: from 1 to 5.
        indices: the indices of the images to read, from 0 to 9,999. None: all.

    Raises:
        InputError: the corruption or severity does not exist, or a file is missing, damaged or of another shape.
    """
    if corruption not in CIFAR10C_TYPES:
        raise unknown("type of CIFAR-10-C", corruption, CIFAR10C_TYPES)
    if severity not in range(1, _SEVERITIES + 1):
        raise InputError(f"the severity of a corruption must be from 1 to {_SEVERITIES}, and is {severity}")
    images = _opened(Path(folder) / f"{corruption}.npy", (32, 32, 3), "u1")
    labels = _opened(Path(folder) / "labels.npy", (), "iu")
    first = (severity - 1) * _IMAGES
    chosen = np.arange(_IMAGES) if indices is None else indices.numpy(force=True)
    pixels = torch.from_numpy(np.ascontiguousarray(images[first + chosen].transpose(0, 3, 1, 2)))
    return Split(pixels, torch.from_numpy(labels[first + chosen].astype(np.int64)))


def check_cifar10c(folder: str | Path, data: Data) -> None:
    """Check that a folder contains all of CIFAR-10-C, and that it belongs to a data set's test images.

    Args:
        folder: the folder with the files.
        data: the data set; its test labels must be those of CIFAR-10, in the same order.

    Raises:
        InputError: a file is missing or damaged, or the data are not CIFAR-10.
    """
    for corruption in CIFAR10C_TYPES:
        _opened(Path(folder) / f"{corruption}.npy", (32, 32, 3), "u1")
    labels = torch.from_numpy(_opened(Path(folder) / "labels.npy", (), "iu")[:_IMAGES].astype(np.int64))
    if (data.in_channels, *data.stored_size) != (3, 32, 32) or not torch.equal(labels, data.test.labels.cpu()):
        raise InputError(
            f"cifar-10-c:{folder} requires the test images of CIFAR-10, and the labels of {data.name} differ"
        )


def _opened(path: Path, shape: tuple[int, ...], kinds: str) -> np.ndarray:
    """Memory-map an array with 50,000 entries and check its shape and dtype."""
    what, remedy = "an .npy file of CIFAR-10-C", "; give the folder of its 19 types and labels.npy"
    check_file(path, what, remedy)
    with reading(path, what, remedy):
        array = np.lib.format.open_memmap(path, mode="r")
    expected = (_SEVERITIES * _IMAGES, *shape)
    is_kind = array.dtype == np.uint8 if kinds == "u1" else array.dtype.kind in kinds
    if array.shape != expected or not is_kind:
        kind = "uint8" if kinds == "u1" else "integers"
        found = f"{printable(array.dtype, 100)} {list(array.shape)}"
        raise InputError(f"{printable(path)}: this is {found}, but must be {kind} {list(expected)}")
    return array
