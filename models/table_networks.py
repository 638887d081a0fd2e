"""Networks for the rows of a table, by name."""

import re

from torch import nn

from bayes_share.errors import InputError, unknown
from bayes_share.models.blocks import dropout_layer


def table_network_names() -> list[str]:
    """The names for a help text."""
    return ["mlp", "mlpD_W"]


def build_table_network(
    name: str,
    *,
    num_inputs: int,
    num_numeric: int,
    num_outputs: int,
    norm: str | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """Build a freshly initialised network.

    Args:
        name: one of `table_network_names`, with numbers for D hidden layers of W units.
        num_inputs: of a row.
        num_numeric: inputs that are numbers, the first ones.
        num_outputs: of a row.
        norm: "batch" or "none".
        dropout: the probability of dropout after each hidden layer.

    Raises:
        InputError: an unknown name, or a number that cannot be used.
    """
    found = re.fullmatch("mlp([0-9]{1,6})_([0-9]{1,6})", name)
    if name != "mlp" and found is None:
        raise unknown("model of tables", name, table_network_names())
    depth, width = (2, 128) if found is None else (int(found[1]), int(found[2]))
    if min(depth, width) < 1:
        raise InputError(f"{name}: depth and width must be at least 1")
    if norm not in (None, "none", "batch"):
        raise unknown("norm of a perceptron", norm, ("none", "batch"))
    layers: list[nn.Module] = []
    units = num_inputs
    for _ in range(depth):
        layers += [nn.Linear(units, width), *([nn.BatchNorm1d(width)] if norm == "batch" else []), nn.ReLU()]
        layers += [dropout_layer(dropout)] if dropout else []
        units = width
    return nn.Sequential(*layers, nn.Linear(units, num_outputs))
