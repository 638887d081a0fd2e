"""Networks for tabular data, by name."""

import re
from collections.abc import Sequence

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.models.number_embeddings import Bins
from bayes_share.models.table_mlp import TableMLP

_SIZES = {"mlp": (2, 128), "tabm": (2, 256)}  # default depth and width


def table_network_names() -> list[str]:
    """Return the network names as shown in help texts."""
    return [*_SIZES, *(f"{name}D_W" for name in _SIZES)]


def build_table_network(
    name: str,
    *,
    num_inputs: int,
    num_outputs: int,
    bins: Bins = (),
    columns: Sequence[int] = (),
    norm: str | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a randomly initialised network.

    Args:
        name: one of `table_network_names`, with integers for D hidden layers of W units: "mlp3_64" uses numeric inputs
            directly, "tabm3_64" embeds them.
        num_inputs: the number of inputs per row.
        num_outputs: the number of outputs per row.
        bins: the bin edges of the numeric inputs, which come first.
        columns: the number of inputs that encode each remaining column of the table; empty: one input each.
        norm: "batch" or "none". Default: "none".
        dropout: the dropout probability after each hidden layer.

    Returns:
        A network that maps rows ``[row, input]`` to outputs ``[row, output]``.

    Raises:
        InputError: if the name is unknown, the depth or the width is 0, or another option is invalid.
    """
    sized = re.fullmatch("(mlp|tabm)([0-9]{1,6})_([0-9]{1,6})", name)
    if name not in _SIZES and sized is None:
        error = unknown("model of tables", name, table_network_names())
        raise InputError(f"{error}; D and W are integers, as in mlp3_64")
    family = name if sized is None else sized[1]
    depth, width = _SIZES[name] if sized is None else (int(sized[2]), int(sized[3]))
    if min(depth, width) < 1:
        raise InputError(f"{name}: depth and width must be at least 1")
    is_embedded = family == "tabm" and bool(bins)
    embedded, others = (bins, columns) if is_embedded else ((), (*[1] * len(bins), *columns) if columns else ())
    return TableMLP(
        num_inputs, num_outputs, depth, width, embedded, norm=norm or "none", dropout=dropout, columns=others
    )
