"""Quantile bins of numeric inputs, for networks that embed numbers."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError

_NARROWEST = 1e-12  # a bin's minimum width relative to the range, so that dividing by it stays finite


def quantile_bins(numbers: Float[Tensor, "row number"], most: int = 48) -> tuple[tuple[float, ...], ...]:
    """Compute bins with about equally many training examples each.

    Args:
        numbers: the numeric inputs of the training examples.
        most: the maximum number of bins per input. Inputs with few distinct values have fewer.

    Returns:
        The edges of the bins of each input, in ascending order.

    Raises:
        InputError: there are fewer than two examples, or `most` is below 1.

    >>> quantile_bins(torch.tensor([[0.0], [1.0], [2.0], [4.0]]), 2)
    ((0.0, 1.5, 4.0),)
    """
    if len(numbers) < 2 or most < 1:
        raise InputError(
            f"bins require at least 2 examples and at least 1 bin, not {most} bins of {len(numbers)} examples"
        )
    levels = torch.linspace(0, 1, min(most, len(numbers) - 1) + 1, dtype=torch.float64)
    found = []
    for column in numbers.double().unbind(1):
        # Computed by sorting, because `torch.quantile` is limited to 16 million elements.
        place = levels * (len(column) - 1)
        low = place.floor().long()
        values = column.sort().values
        high = (low + 1).clamp(max=len(column) - 1)
        found.append(tuple(_apart(torch.lerp(values[low], values[high], place - low).float()).tolist()))
    return tuple(found)


def _apart(quantiles: Float[Tensor, "quantile"]) -> Float[Tensor, "edge"]:
    """Merge quantiles that are too close to the next one.

    If all are equal, return one bin of width 1, or up to the next float if the numbers are too large for that.
    """
    lowest, highest = quantiles[0], quantiles[-1]
    if not highest > lowest:
        return torch.stack([lowest, torch.maximum(lowest + 1, lowest.nextafter(lowest.new_tensor(torch.inf)))])
    is_apart = quantiles.diff() > _NARROWEST * (highest - lowest)
    return torch.cat([quantiles[:-1][is_apart], highest[None]])
