"""Networks for the rows of a table, by name."""

import re
from collections.abc import Sequence

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.models.number_embeddings import Bins
from bayes_share.models.table_mlp import TableMLP

_SIZES = {"mlp": (2, 128), "tabm": (2, 256)}  # depth and width


def table_network_names() -> list[str]:
    """The names for a help text."""
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
    """Build a freshly initialised network.

    Args:
        name: one of `table_network_names`, with numbers for D hidden layers of W units: "mlp3_64" takes inputs as they
            are, and "tabm3_64" embeds numbers.
        num_inputs: of a row.
        num_outputs: of a row.
        bins: of the inputs that are numbers, which are the first ones.
        columns: how many inputs each other column of the table became; none: one each.
        norm: "batch" or "none", which is the networks' own.
        dropout: the probability of dropout after each hidden layer.

    Returns:
        A network that maps rows ``[row, input]`` to outputs ``[row, output]``.

    Raises:
        InputError: an unknown name, or a number that cannot be used.
    """
    found = re.fullmatch("(mlp|tabm)([0-9]{1,6})_([0-9]{1,6})", name)
    if name not in _SIZES and found is None:
        error = unknown("model of tables", name, table_network_names())
        raise InputError(f"{error}; D and W are numbers, as in mlp3_64")
    family = name if found is None else found[1]
    depth, width = _SIZES[name] if found is None else (int(found[2]), int(found[3]))
    if min(depth, width) < 1:
        raise InputError(f"{name}: depth and width must be at least 1")
    is_embedded = family == "tabm" and bool(bins)
    embedded, others = (bins, columns) if is_embedded else ((), (*[1] * len(bins), *columns) if columns else ())
    return TableMLP(
        num_inputs, num_outputs, depth, width, embedded, norm=norm or "none", dropout=dropout, columns=others
    )
