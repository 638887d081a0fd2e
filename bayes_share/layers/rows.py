"""The member-major layout: division of the rows of a batch among the uses of a factor."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bayes_share.errors import InputError


def divide(x: Shaped[Tensor, "row ..."], uses: int) -> Shaped[Tensor, "use batch ..."]:
    """Divide the rows into `uses` consecutive parts of equal size.

    Raises:
        InputError: if the number of rows is not a multiple of the number of uses.
    """
    rows = x.shape[0]
    if uses < 1 or rows % uses:
        raise InputError(
            f"{rows} rows do not divide among {uses} members: inside an ensemble the first axis is member-major, "
            f"[member * batch, ...]; call the ensemble itself, which tiles its input"
        )
    if _is_exporting():  # torch.export cannot prove for a dynamic batch size that unflatten gives a view
        return torch.stack(x.tensor_split(uses))
    return x.unflatten(0, (uses, rows // uses))


# Not available before torch 2.7, where exported programs have a fixed batch size.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


def scale(x: Float[Tensor, "row ..."], factor: Float[Tensor, "use channel"], axis: int) -> Float[Tensor, "row ..."]:
    """Multiply each row by the factor of its use.

    Args:
        x: the rows, divided in order among the uses.
        factor: one value per use and channel; cast to the dtype of `x`, so that autocast remains in effect.
        axis: the channel axis of `x`.
    """
    parts = divide(x, factor.shape[0])
    return (parts * align(factor, parts, axis)).flatten(0, 1)


def scale_shift(
    x: Float[Tensor, "row ..."],
    factor: Float[Tensor, "*use channel"],
    shift: Float[Tensor, "*shift_use channel"] | None,
    axis: int,
) -> Float[Tensor, "row ..."]:
    """Multiply each row by the factor of its use and add the shift of its use.

    Factor and shift may have different numbers of uses. A factor or shift without a use axis applies to all rows.
    """
    factor = torch.atleast_2d(factor)
    if shift is None:
        return scale(x, factor, axis)
    shift = torch.atleast_2d(shift)
    if shift.shape[0] != factor.shape[0]:
        parts = divide(scale(x, factor, axis), shift.shape[0])
        return (parts + align(shift, parts, axis)).flatten(0, 1)
    parts = divide(x, factor.shape[0])
    return torch.addcmul(align(shift, parts, axis), parts, align(factor, parts, axis)).flatten(0, 1)


def align(factor: Tensor, parts: Tensor, axis: int) -> Tensor:
    """Reshape `factor` [use, channel] to broadcast against `parts` [use, batch, ...], and cast it to their dtype.

    Args:
        factor: one value per use and channel.
        parts: the rows as returned by `divide`.
        axis: the channel axis of the rows before they were divided.
    """
    shape = [1] * parts.ndim
    shape[0] = factor.shape[0]
    shape[axis if axis < 0 else axis + 1] = factor.shape[1]
    return factor.to(parts.dtype).view(shape)


def spread(rows: Shaped[Tensor, "member ..."], uses: int) -> Shaped[Tensor, "use ..."]:
    """Repeat each row so that there are `uses` rows, a multiple of the number of rows."""
    return rows if len(rows) == uses else rows.repeat_interleave(uses // len(rows), 0)
