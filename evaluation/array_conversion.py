"""Conversion of user-supplied tensors and NumPy arrays to the dtypes that predictions are stored in."""

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from bayes_share.errors import InputError

Array = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]
"""A tensor or NumPy array given by the user."""


def as_tensor(what: str, values: object) -> Shaped[Tensor, "..."]:
    """Convert a NumPy array to a tensor, or detach a tensor.

    Args:
        what: the name of the values in error messages, in the plural.
        values: the array or tensor.

    Raises:
        InputError: if `values` is neither a tensor nor a NumPy array, or the array is not numeric.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "biuf":
            raise InputError(f"{what} must be numbers, and are {kind_in_words(values.dtype)}")
        if values.dtype.kind == "u":  # torch supports unsigned integers only in part, and long doubles not at all
            values = values.astype(np.int64)
        elif values.dtype.kind == "f" and values.dtype.itemsize > 8:
            values = values.astype(np.float64)
        elif not values.dtype.isnative:
            values = values.astype(values.dtype.newbyteorder("="))
        return torch.from_numpy(values if values.flags.writeable else values.copy())
    if not isinstance(values, Tensor):
        raise InputError(f"{what} must be a tensor or a NumPy array, not {type(values).__name__}")
    return values.detach()  # scores are not differentiated


def kind_in_words(dtype: np.dtype) -> str:
    """Return a readable name for a NumPy dtype, such as "texts" for ``<U21``.

    >>> kind_in_words(np.dtype("<U21")), kind_in_words(np.dtype("float32")), kind_in_words(np.dtype(object))
    ('texts', 'float32', 'objects')
    """
    names = {"U": "texts", "S": "bytes", "O": "objects", "V": "records", "M": "dates", "m": "times"}
    return names.get(dtype.kind, dtype.name)


def as_float32(what: str, values: object) -> Float32[Tensor, "..."]:
    """Convert floating-point values of any precision to float32.

    Args:
        what: the name of the values in error messages, in the plural.
        values: a tensor or NumPy array.

    Raises:
        InputError: if the values are not floating point.
    """
    found = as_tensor(what, values)
    if not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise InputError(f"{what} must be floating point, and are {kind}")
    return found.float()


def as_labels(values: object) -> Shaped[Tensor, "..."]:
    """Convert integer labels to int64.

    Args:
        values: a tensor or NumPy array; booleans and floating-point values keep their dtype.

    Raises:
        InputError: if `values` is neither a tensor nor a numeric NumPy array.
    """
    labels = as_tensor("labels", values)
    is_integer = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    return labels.long() if is_integer else labels
