"""Images in NumPy's ``.npz`` files, read without ever unpickling anything."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from bayes_share.data.source import Source, checked_split, from_where
from bayes_share.errors import InputError

_PARTS = ("train", "validation", "test")
_ARRAYS = ("images", "labels", "split", "class_names")
# What NumPy and zipfile raise on bytes that are no archive, or were one; a damaged header may ask for a huge array.
_DAMAGED: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def read_npz(path: Path) -> Source:
    """A folder with ``train.npz``, ``test.npz`` and, if there is one, ``validation.npz``; or a single file.

    Each file has ``images``, uint8 ``[N, H, W, C]`` or ``[N, H, W]``, and ``labels``, integers ``[N]``. A string array
    ``class_names`` in the single or the training file names the classes. A single file may have ``split``, for each
    image 0, 1 or 2: training, validation or test. Other arrays are not looked at.

    Args:
        path: the folder or the file.

    Raises:
        InputError: if something is missing, damaged or of another form.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_file(path)
    raise InputError(
        f"npz:{path}: no such file or folder{from_where(path)}; "
        f"give a .npz file, or a folder with train.npz and test.npz"
    )


def read_unlabelled(path: Path) -> UInt8[Tensor, "image channel height width"] | None:
    """The images of a single file without labels; None where it has labels or is a folder, which `read_npz` reads.

    Args:
        path: the file.

    Raises:
        InputError: if there are no images in it, or it is damaged or of another form.
    """
    if not path.is_file():
        return None
    arrays = _arrays(path, needed=("images",))
    if "labels" in arrays:
        return None
    images = arrays["images"]
    return checked_split(images, np.zeros(images.shape[:1], dtype=np.int64), str(path)).images


def _read_folder(folder: Path) -> Source:
    paths = {part: folder / f"{part}.npz" for part in _PARTS}
    for part in ("train", "test"):
        if not paths[part].is_file():
            raise InputError(f"npz:{folder}: there is no {part}.npz; the folder needs train.npz and test.npz")
    arrays = {part: _arrays(path) for part, path in paths.items() if path.exists()}
    splits = {part: checked_split(found["images"], found["labels"], str(paths[part])) for part, found in arrays.items()}
    return Source(**splits, class_names=_class_names(arrays["train"], paths["train"]))


def _read_file(path: Path) -> Source:
    arrays = _arrays(path)
    everything = checked_split(arrays["images"], arrays["labels"], str(path))
    class_names = _class_names(arrays, path)
    if "split" not in arrays:
        return Source(everything, class_names=class_names)
    part_of = arrays["split"]
    if part_of.shape != (len(everything),) or part_of.dtype.kind not in "iu" or not np.isin(part_of, (0, 1, 2)).all():
        raise InputError(
            f"{path}: split must hold one integer for each of {len(everything)} images, "
            f"0 for training, 1 for validation, 2 for test"
        )
    indices = {part: torch.from_numpy(np.flatnonzero(part_of == code)) for code, part in enumerate(_PARTS)}
    for code, part in ((0, "train"), (2, "test")):
        if not len(indices[part]):
            raise InputError(f"{path}: split has no {code}, so there are no {part} images; leave it out for 70/10/20")
    splits = {part: everything.at(chosen) for part, chosen in indices.items() if len(chosen)}
    return Source(**splits, class_names=class_names)


def _arrays(path: Path, needed: tuple[str, ...] = ("images", "labels")) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array without a name")
            found = archive.files
            arrays = {name: archive[name] for name in found if name in _ARRAYS}
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "unsafely" in reason:  # of any bytes that are no archive NumPy says how to unpickle them all the same
            reason = "it is no zip archive"
        raise InputError(f"{path}: this cannot be read as an npz file without pickled objects ({reason})") from error
    for name in needed:
        if name not in arrays:
            raise InputError(f"{path}: there is no array {name!r}; it has: {', '.join(found) or 'none'}")
    return arrays


def _class_names(arrays: dict[str, np.ndarray], path: Path) -> tuple[str, ...]:
    names = arrays.get("class_names", np.array([], dtype=str))
    if names.dtype.kind != "U" or names.ndim != 1:
        raise InputError(f"{path}: class_names are {names.dtype} {names.shape}, but must be one string for each class")
    return tuple(names.tolist())
