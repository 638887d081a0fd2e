"""The member-major layout: how the rows of a batch are divided among the uses of a factor."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bayes_share.errors import InputError


def divide(x: Shaped[Tensor, "row ..."], uses: int) -> Shaped[Tensor, "use batch ..."]:
    """View the rows as `uses` consecutive parts of one size.

    Raises:
        InputError: the rows do not divide among the uses; they are never wrapped round.
    """
    rows = x.shape[0]
    if uses < 1 or rows % uses:
        raise InputError(
            f"{rows} rows do not divide among {uses} members: inside an ensemble the first axis is member-major, "
            f"[member * batch, ...]; call the ensemble itself, which tiles its input"
        )
    if _is_exporting():  # which cannot show of a batch of any size that this is a view of what was flattened before
        return torch.stack(x.tensor_split(uses))
    return x.unflatten(0, (uses, rows // uses))


# Not there before torch 2.7, which then exports batches of one size only.
_is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


def scale(x: Float[Tensor, "row ..."], factor: Float[Tensor, "use channel"], axis: int) -> Float[Tensor, "row ..."]:
    """Multiply each row by its use's factor.

    Args:
        x: the rows, divided in order among the uses.
        factor: one number per use and channel; cast to the dtype of `x`, so that autocast stays in force.
        axis: where the channels are in `x`.
    """
    parts = divide(x, factor.shape[0])
    return (parts * align(factor, parts, axis)).flatten(0, 1)


def scale_shift(
    x: Float[Tensor, "row ..."],
    factor: Float[Tensor, "*use channel"],
    shift: Float[Tensor, "*shift_use channel"] | None,
    axis: int,
) -> Float[Tensor, "row ..."]:
    """Multiply each row by its use's factor and add its use's shift.

    The two may be divided differently, and either may have no axis for uses: then it serves all rows.
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
    """View `factor` [use, channel], in the dtype of `parts`, so that it broadcasts against `parts` [use, batch, ...].

    Args:
        factor: one number per use and channel.
        parts: rows as `divide` leaves them.
        axis: where the channels are in a row's tensor before it was divided.
    """
    shape = [1] * parts.ndim
    shape[0] = factor.shape[0]
    shape[axis if axis < 0 else axis + 1] = factor.shape[1]
    return factor.to(parts.dtype).view(shape)


def spread(rows: Shaped[Tensor, "member ..."], uses: int) -> Shaped[Tensor, "use ..."]:
    """Rows repeated in order for so many uses, a whole multiple of them."""
    return rows if len(rows) == uses else rows.repeat_interleave(uses // len(rows), 0)
