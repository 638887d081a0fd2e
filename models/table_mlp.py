"""A perceptron for the rows of a table."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.blocks import dropout_layer
from bayes_share.models.number_embeddings import Bins, NumberEmbeddings


class TableMLP(nn.Module):
    """Hidden layers of one width with ReLU and dropout, on embedded numbers and all other inputs as they are.

    Made an ensemble of 32 whose first factor starts at N(0, 1) and all others at ones, with heads of the members' own,
    it is TabM (arXiv 2410.24210): ``ensemble(net, 32, {"first.r": "standard_normal", "head": "fresh", "*": "ones"},
    own=("head",))``; the embeddings are shared.

    Args:
        num_inputs: of a row.
        num_outputs: of a row.
        depth: hidden layers.
        width: units of each.
        bins: of the first inputs, which are numbers; see `NumberEmbeddings`. Without bins no number is embedded.
        embedding: width of an embedding.
        norm: "batch" or "none", before each ReLU.
        dropout: the probability of dropping a value after each hidden layer.
        columns: of the inputs that are not embedded, how many each column of the table became; none: one each. The
            factors of the first layer start alike within a column, embedded or not (section 3.3 of the paper).

    Raises:
        InputError: a number that cannot be used, or another norm.
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
            raise InputError("a perceptron has inputs, outputs, layers and units, and no more bins than inputs")
        if norm not in ("none", "batch"):
            raise InputError(f"a perceptron for tables has norm 'none' or 'batch', not {norm!r}")
        others = num_inputs - len(bins)
        if columns and sum(columns) != others:
            raise InputError(f"the columns are of {sum(columns)} inputs, and {others} are not embedded")
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
            numbers, others = x[:, : self.num_embedded], x[:, self.num_embedded :]
            x = torch.cat([self.embeddings(numbers).flatten(1), others], 1)
        return self.head(self.layers(x))
