"""Bins of numbers, which a network embeds them by."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayes_share.errors import InputError

_NARROWEST = 1e-12  # of a bin, as a part of the range: a number beyond it must not become infinite


def quantile_bins(numbers: Float[Tensor, "row number"], most: int = 48) -> tuple[tuple[float, ...], ...]:
    """Bins with about as many training examples each.

    Args:
        numbers: of the training examples.
        most: bins of a number, which has fewer where it has fewer values.

    Raises:
        InputError: fewer than two examples, or no bin.

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
        # Sorted by hand: `torch.quantile` takes no more than 16 million numbers.
        place = levels * (len(column) - 1)
        low = place.floor().long()
        values = column.sort().values
        high = (low + 1).clamp(max=len(column) - 1)
        found.append(tuple(_apart(torch.lerp(values[low], values[high], place - low).float()).tolist()))
    return tuple(found)


def _apart(quantiles: Float[Tensor, "quantile"]) -> Float[Tensor, "edge"]:
    """The quantiles that are apart from the next one; where all are alike, a bin of size 1, or of the next number."""
    lowest, highest = quantiles[0], quantiles[-1]
    if not highest > lowest:
        return torch.stack([lowest, torch.maximum(lowest + 1, lowest.nextafter(lowest.new_tensor(torch.inf)))])
    is_apart = quantiles.diff() > _NARROWEST * (highest - lowest)
    return torch.cat([quantiles[:-1][is_apart], highest[None]])
