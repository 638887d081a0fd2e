"""Piecewise-linear embeddings of numeric inputs, which let an MLP vary quickly where the data are dense."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError

Bins = Sequence[Sequence[float]]
"""The bin edges of each numeric input, in ascending order."""

_FAR = torch.finfo(torch.float32).max  # pads missing edges; finite, because values in a state dict must be finite


class NumberEmbeddings(nn.Module):
    """Piecewise-linear embeddings of numeric inputs (arXiv 2203.05556, section 3.2; as in arXiv 2410.24210).

    The encoding of a value has one entry per bin: 1 if the value is above the bin, 0 if it is below, and otherwise the
    fraction of the bin below the value. The first and the last bin are extrapolated linearly. The embedding is a linear
    map of the value and its encoding, with separate weights for each input. The weights of the encoding start at 0, so
    the embedding is linear at initialisation.

    Args:
        bins: the bin edges of each input; see `Bins`.
        width: the width of an embedding.

    Raises:
        InputError: if there are no inputs, the width is below 1, or the edges of an input are fewer than two, not
            finite or not in ascending order.
    """

    inner: Tensor
    lower: Tensor
    sizes: Tensor

    def __init__(self, bins: Bins, width: int) -> None:
        super().__init__()
        if not bins or width < 1:
            raise InputError(f"embeddings require at least one numeric input and a width of at least 1, not {width}")
        for index, input_edges in enumerate(bins):
            edges = torch.tensor(input_edges, dtype=torch.float32)
            if len(edges) < 2 or not bool(edges.isfinite().all()) or not bool((edges.diff() > 0).all()):
                raise InputError(f"the bins of input {index} require at least two finite edges in ascending order")
        shape = len(bins), max(map(len, bins)) - 1
        inner, lower, sizes = torch.full((shape[0], shape[1] - 1), _FAR), torch.zeros(shape), torch.ones(shape)
        for index, input_edges in enumerate(bins):
            edges, count = torch.tensor(input_edges, dtype=torch.float32), len(input_edges) - 1
            inner[index, : count - 1] = edges[1:-1]
            lower[index, :count], sizes[index, :count] = edges[:-1], edges.diff()
        for name, buffer in (("inner", inner), ("lower", lower), ("sizes", sizes)):
            self.register_buffer(name, buffer)
        self.slope = nn.Parameter(torch.empty(len(bins), width))
        self.bias = nn.Parameter(torch.empty(len(bins), width))
        self.weight = nn.Parameter(torch.zeros(*shape, width))
        for parameter in (self.slope, self.bias):
            nn.init.uniform_(parameter, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, x: Float[Tensor, "row number"]) -> Float[Tensor, "row number width"]:
        """Compute the embeddings.

        The linear map of the encoding is the sum of the weights of all lower bins, which is looked up in a table, plus
        a fraction of the weight of the value's own bin.
        """
        inputs, bins, _ = self.weight.shape
        own_bin = torch.searchsorted(self.inner, x.detach().T.contiguous().to(self.inner.dtype), right=True).T
        index = own_bin + bins * torch.arange(inputs, device=x.device)
        table = torch.cat([self.weight.cumsum(1) - self.weight, self.weight], 2).flatten(0, 1)
        below, rise = nn.functional.embedding(index, table).chunk(2, 2)
        fraction = (x - self.lower.take(index)) / self.sizes.take(index)
        line = torch.addcmul(self.bias, x[:, :, None], self.slope)
        return line + torch.addcmul(below, rise, fraction[:, :, None])

    def extra_repr(self) -> str:
        """The sizes, for ``repr``."""
        return f"numbers={len(self.weight)}, bins={self.weight.shape[1]}, width={self.weight.shape[2]}"
