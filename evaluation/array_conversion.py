"""Tensors and arrays of numpy as somebody has them, made into the types that predictions have."""

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from bayes_share.errors import InputError

Array = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]
"""What a user may hand in."""


def as_tensor(what: str, values: object) -> Shaped[Tensor, "..."]:
    """A tensor, or an array of numpy as a tensor.

    Args:
        what: its name, in the plural.
        values: what was handed in.

    Raises:
        InputError: something else, or an array that is not of numbers.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "biuf":
            raise InputError(f"{what} must be numbers, and are {kind_in_words(values.dtype)}")
        if values.dtype.kind == "u":  # of these and of long doubles torch has little
            values = values.astype(np.int64)
        elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
            values = values.astype(np.float64)
        elif not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        return torch.from_numpy(values if values.flags.writeable else values.copy())
    if not isinstance(values, Tensor):
        raise InputError(f"{what} must be a tensor or an array of numpy, not {type(values).__name__}")
    return values.detach()  # scores are numbers, and not to be trained by


def kind_in_words(dtype: np.dtype) -> str:
    """A type of numpy's as people call it: its own name, but "texts" for what it calls ``<U21``.

    >>> kind_in_words(np.dtype("<U21")), kind_in_words(np.dtype("float32")), kind_in_words(np.dtype(object))
    ('texts', 'float32', 'objects')
    """
    names = {"U": "texts", "S": "bytes", "O": "objects", "V": "records", "M": "dates", "m": "times"}
    return names.get(dtype.kind, dtype.name)


def as_float32(what: str, values: object) -> Float32[Tensor, "..."]:
    """Floating-point numbers of any precision as float32.

    Args:
        what: their name, in the plural.
        values: what was handed in.

    Raises:
        InputError: something else than floating-point numbers.
    """
    found = as_tensor(what, values)
    if not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise InputError(f"{what} must be floating point, and are {kind}")
    return found.float()


def as_labels(values: object) -> Shaped[Tensor, "..."]:
    """Labels, whose integers are made int64.

    Args:
        values: what was handed in; what is no integer stays as it is.

    Raises:
        InputError: something else than a tensor or an array of numbers.
    """
    labels = as_tensor("labels", values)
    is_integer = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    return labels.long() if is_integer else labels
