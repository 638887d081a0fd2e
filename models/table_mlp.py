"""A multilayer perceptron for tabular data."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.blocks import dropout_layer
from bayes_share.models.number_embeddings import Bins, NumberEmbeddings


class TableMLP(nn.Module):
    """Hidden layers of equal width with ReLU and dropout, on embedded numeric inputs and the remaining inputs.

    TabM (arXiv 2410.24210) is an ensemble of 32 members of this network, whose first factor is initialised from N(0, 1)
    and all others with ones, and whose heads belong to each member: ``ensemble(net, 32, {"first.r": "standard_normal",
    "head": "fresh", "*": "ones"}, own=("head",))``. The members share the embeddings.

    Args:
        num_inputs: the number of inputs per row.
        num_outputs: the number of outputs per row.
        depth: the number of hidden layers.
        width: the number of units of each hidden layer.
        bins: the bin edges of the first, numeric inputs; see `NumberEmbeddings`. Empty: no input is embedded.
        embedding: the width of an embedding.
        norm: "batch" or "none", before each ReLU.
        dropout: the dropout probability after each hidden layer.
        columns: the number of inputs that encode each column, for the inputs that are not embedded; empty: one input
            each. The factors r of the first layer start with equal values within a column, embedded or not (section
            3.3 of the paper).

    Raises:
        InputError: if a size is below 1, there are more bins than inputs, the columns do not cover the inputs, or the
            norm is not supported.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        depth: int = 2,
        width: int = 128,
        bins: Bins = (),
        embedding: int = 16,
        norm: str = "none",
        dropout: float = 0.0,
        columns: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if min(num_inputs, num_outputs, depth, width) < 1 or len(bins) > num_inputs:
            raise InputError("inputs, outputs, depth and width must be at least 1, and bins no more than inputs")
        if norm not in ("none", "batch"):
            raise InputError(f"networks for tables support norm 'none' or 'batch', not {norm!r}")
        others = num_inputs - len(bins)
        if columns and sum(columns) != others:
            raise InputError(f"the columns have {sum(columns)} inputs in total, and {others} inputs are not embedded")
        self.num_embedded = len(bins)
        self.embeddings = NumberEmbeddings(bins, embedding) if bins else None
        units = num_inputs - len(bins) + len(bins) * embedding
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers.append(nn.Linear(units, width))
            layers += [nn.BatchNorm1d(width)] if norm == "batch" else []
            layers += [nn.ReLU(), *([dropout_layer(dropout)] if dropout else [])]
            units = width
        layers[0].input_groups = (*[embedding] * len(bins), *(columns or [1] * others))  # type: ignore[assignment]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(units, num_outputs)

    def forward(self, x: Float[Tensor, "row input"]) -> Float[Tensor, "row output"]:
        """Map rows to outputs."""
        if self.embeddings is not None:
            numeric, others = x[:, : self.num_embedded], x[:, self.num_embedded :]
            x = torch.cat([self.embeddings(numeric).flatten(1), others], 1)
        return self.head(self.layers(x))
