"""Embeddings of numbers, which let a perceptron be steep where the data are dense."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError

Bins = Sequence[Sequence[float]]
"""For each number the edges of its bins, in ascending order."""

_FAR = torch.finfo(torch.float32).max


class NumberEmbeddings(nn.Module):
    """Piecewise-linear embeddings of numbers (arXiv 2203.05556, section 3.2; as in arXiv 2410.24210).

    The encoding of a number has an entry for each of its bins: 1 where the number lies above the bin, 0 where it lies
    below, and in between the part of the bin that lies below the number; the first and the last bin go on as lines. Its
    embedding is a linear map of the number and of its encoding, with weights of that number's own. The part of the
    encoding starts at 0, so that the embedding starts as a line.

    Args:
        bins: of each number; see `Bins`.
        width: of an embedding.

    Raises:
        InputError: edges that are fewer than two, not finite or not in ascending order; no number, or no width.
    """

    edges: Tensor
    sizes: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, bins: Bins, width: int) -> None:
        super().__init__()
        if not bins or width < 1:
            raise InputError(f"embeddings are of at least one number, and of a width of at least 1, not {width}")
        for number, edges in enumerate(bins):
            is_ascending = all(low < high for low, high in pairwise(edges))
            if len(edges) < 2 or not is_ascending or not all(map(math.isfinite, edges)):
                raise InputError(f"the edges of the bins of number {number} must be at least two, in ascending order")
        self.width = width
        most = max(map(len, bins)) - 1
        parts = [_bounds(edges, most) for edges in bins]
        for i, name in enumerate(("edges", "sizes", "lowest", "highest")):
            self.register_buffer(name, torch.stack([part[i] for part in parts]))
        self.slope = nn.Parameter(torch.empty(len(bins), width))
        self.bias = nn.Parameter(torch.empty(len(bins), width))
        self.weight = nn.Parameter(torch.zeros(len(bins), most, width))
        for parameter in (self.slope, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def encode(self, x: Float[Tensor, "row number"]) -> Float[Tensor, "row number bin"]:
        """The piecewise-linear encoding; 0 in bins that a number has not."""
        parts = (x[:, :, None] - self.edges) / self.sizes
        return parts.clamp(self.lowest, self.highest)

    def forward(self, x: Float[Tensor, "row number"]) -> Float[Tensor, "row number width"]:
        """The embeddings."""
        curved = torch.einsum("rnb,nbw->rnw", self.encode(x), self.weight)
        return torch.addcmul(self.bias, x[:, :, None], self.slope) + curved

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"numbers={len(self.edges)}, bins={self.edges.shape[1]}, width={self.width}"


def _bounds(edges: Sequence[float], most: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower edges, sizes, and between what an entry is held, for each bin; a bin that is not there is held at 0."""
    count = len(edges) - 1
    at = torch.tensor(edges, dtype=torch.float32)
    lower, sizes = torch.zeros(most), torch.ones(most)
    lower[:count], sizes[:count] = at[:-1], at.diff()
    lowest, highest = torch.zeros(most), torch.zeros(most)
    highest[:count] = 1.0
    lowest[0], highest[count - 1] = -_FAR, _FAR
    return lower, sizes, lowest, highest
