"""Embeddings of numbers, which let a perceptron be steep where the data are dense."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError

Bins = Sequence[Sequence[float]]
"""For each number the edges of its bins, in ascending order."""

_FAR = torch.finfo(torch.float32).max  # beyond every number, and finite, as all that a state holds


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

    inner: Tensor
    lower: Tensor
    sizes: Tensor

    def __init__(self, bins: Bins, width: int) -> None:
        super().__init__()
        if not bins or width < 1:
            raise InputError(f"embeddings are of at least one number, and of a width of at least 1, not {width}")
        for number, edges in enumerate(bins):
            at = torch.tensor(edges, dtype=torch.float32)
            if len(at) < 2 or not bool(at.isfinite().all()) or not bool((at.diff() > 0).all()):
                raise InputError(f"the edges of the bins of number {number} must be at least two, in ascending order")
        shape = len(bins), max(map(len, bins)) - 1
        inner, lower, sizes = torch.full((shape[0], shape[1] - 1), _FAR), torch.zeros(shape), torch.ones(shape)
        for number, edges in enumerate(bins):
            at, count = torch.tensor(edges, dtype=torch.float32), len(edges) - 1
            inner[number, : count - 1], lower[number, :count], sizes[number, :count] = at[1:-1], at[:-1], at.diff()
        for name, buffer in (("inner", inner), ("lower", lower), ("sizes", sizes)):
            self.register_buffer(name, buffer)
        self.slope = nn.Parameter(torch.empty(len(bins), width))
        self.bias = nn.Parameter(torch.empty(len(bins), width))
        self.weight = nn.Parameter(torch.zeros(*shape, width))
        for parameter in (self.slope, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Float[Tensor, "row number"]) -> Float[Tensor, "row number width"]:
        """The embeddings; those of the encoding are read off a table, as the sum over the bins below and a part."""
        numbers, bins, _ = self.weight.shape
        own = torch.searchsorted(self.inner, x.detach().T.contiguous().to(self.inner.dtype), right=True).T
        place = own + bins * torch.arange(numbers, device=x.device)
        table = torch.cat([self.weight.cumsum(1) - self.weight, self.weight], 2).flatten(0, 1)
        below, rise = nn.functional.embedding(place, table).chunk(2, 2)
        part = (x - self.lower.take(place)) / self.sizes.take(place)
        line = torch.addcmul(self.bias, x[:, :, None], self.slope)
        return line + torch.addcmul(below, rise, part[:, :, None])

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return f"numbers={len(self.weight)}, bins={self.weight.shape[1]}, width={self.weight.shape[2]}"
