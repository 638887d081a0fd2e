"""Read images from NumPy's ``.npz`` files, without unpickling."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from bayes_share.data.dataset import Split
from bayes_share.data.parts import PARTS, by_part, check_parts
from bayes_share.data.source import Source, checked_images, checked_split, from_where
from bayes_share.errors import InputError
from bayes_share.io.arrays import read_arrays
from bayes_share.io.terminal import listed, printable

_log = logging.getLogger(__name__)

_WHAT = "an npz file without pickled objects"


def read_npz(path: Path) -> Source:
    """Read a folder with ``train.npz``, ``test.npz`` and optionally ``validation.npz``, or a single file.

    The files of a folder may have other common names (`PARTS`).

    Each file contains ``images``, uint8 ``[N, H, W, C]`` or ``[N, H, W]``, and ``labels``, integers ``[N]``. An
    optional string array ``class_names`` in the single or the training file names the classes. A single file may
    contain ``split``, integers ``[N]``: 0 for training, 1 for validation, 2 for test. Other arrays are ignored.

    Args:
        path: the folder or the file.

    Raises:
        InputError: a file or array is missing, damaged or of another format.
    """
    if not os.path.lexists(path):
        raise InputError(
            f"npz:{printable(path)}: no such file or folder{from_where(path)}; "
            f"give a .npz file, or a folder with train.npz and test.npz"
        )
    return _read_folder(path) if path.is_dir() else _read_file(path)


def read_unlabelled(path: Path) -> UInt8[Tensor, "image channel height width"] | None:
    """Read the images of a single file without labels.

    Args:
        path: the file.

    Returns:
        The images, or None if `path` has labels, is a folder or does not exist: `read_npz` handles these.

    Raises:
        InputError: the file contains no images, or is damaged or of another format.
    """
    if path.is_dir() or not os.path.lexists(path):
        return None
    _, there = read_arrays(path, _WHAT, names=())
    return None if "labels" in there else checked_images(_arrays(path, "images")["images"], printable(path))


def _read_folder(folder: Path) -> Source:
    where = f"npz:{printable(folder)}"
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".npz")
    paths = by_part(files, where, ".npz")
    check_parts(paths, where, ".npz")
    if others := [path.name for path in files if path not in paths.values()]:
        _log.warning("%s: %d of %d files are skipped: %s", where, len(others), len(files), listed(others))
    arrays = {part: _arrays(path, "images", "labels") for part, path in paths.items()}
    splits = {part: _split(found, printable(paths[part])) for part, found in arrays.items()}
    class_names = _class_names(arrays["train"], paths["train"])
    return Source(splits["train"], splits["test"], splits.get("validation"), class_names)


def _read_file(path: Path) -> Source:
    arrays, where = _arrays(path, "images", "labels"), printable(path)
    everything = _split(arrays, where)
    class_names = _class_names(arrays, path)
    if "split" not in arrays:
        return Source(everything, class_names=class_names)
    part_of = arrays["split"]
    if part_of.shape != (len(everything),) or part_of.dtype.kind not in "iu" or not np.isin(part_of, (0, 1, 2)).all():
        raise InputError(
            f"{where}: split must hold one integer for each of {len(everything)} images, "
            f"0 for training, 1 for validation, 2 for test"
        )
    indices = {part: torch.from_numpy(np.flatnonzero(part_of == code)) for code, part in enumerate(PARTS)}
    for code, part in ((0, "train"), (2, "test")):
        if not len(indices[part]):
            raise InputError(f"{where}: split has no {code}, so there are no {part} images; leave it out for 70/10/20")
    splits = {part: everything.at(chosen) for part, chosen in indices.items() if len(chosen)}
    return Source(splits["train"], splits["test"], splits.get("validation"), class_names)


def _arrays(path: Path, *needed: str) -> dict[str, np.ndarray]:
    arrays, there = read_arrays(path, _WHAT, {*needed, "split", "class_names"})
    for name in needed:
        if name not in arrays:
            held = listed(there) or "none"
            raise InputError(f"{printable(path)}: there is no array {name!r}; it has: {held}")
    return arrays


def _split(arrays: Mapping[str, np.ndarray], where: str) -> Split:
    return checked_split(arrays["images"], arrays["labels"], where)


def _class_names(arrays: dict[str, np.ndarray], path: Path) -> tuple[str, ...]:
    names = arrays.get("class_names", np.array([], dtype=str))
    if names.dtype.kind != "U" or names.ndim != 1:
        form = f"{printable(names.dtype, 100)} {names.shape}"
        raise InputError(f"{printable(path)}: class_names are {form}, but must be one string for each class")
    return tuple(names.tolist())
