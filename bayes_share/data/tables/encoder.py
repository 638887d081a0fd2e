"""The fitted encoding of a table's columns as inputs and targets, saved with a run as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from bayes_share.data.tables.columns import KINDS, Category, InputColumn, column_to_plain
from bayes_share.data.tables.json_records import check_names, from_plain
from bayes_share.data.tables.table import Table, quoted
from bayes_share.data.tables.target import Target
from bayes_share.errors import InputError, named, unknown
from bayes_share.io.reading import reading
from bayes_share.io.terminal import printable

_FORMAT = 1
_LONGEST = 200  # characters of an input's name


@dataclass(frozen=True)
class TableEncoder:
    """Encodes the columns of a table as inputs and targets.

    Attributes:
        inputs: the input columns; numbers and dates come before categories.
        target: the column to predict.
    """

    inputs: tuple[InputColumn, ...]
    target: Target

    def __post_init__(self) -> None:
        names = [column.name for column in self.inputs] + [self.target.name]
        if len(set(names)) < len(names):
            raise InputError("two columns have the same name")
        kinds = [isinstance(column, Category) for column in self.inputs]
        if not kinds or kinds != sorted(kinds):
            raise InputError("there are no inputs, or categories come before numbers")

    @property
    def num_inputs(self) -> int:
        """The number of network inputs."""
        return sum(column.width for column in self.inputs)

    @property
    def num_numeric(self) -> int:
        """The number of numeric inputs, which come first."""
        return sum(column.width for column in self.inputs if not isinstance(column, Category))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """The number of inputs of each categorical column; they follow the numeric inputs."""
        return tuple(column.width for column in self.inputs if isinstance(column, Category))

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the inputs, printable."""
        return tuple(printable(name, _LONGEST) for column in self.inputs for name in column.features())

    def encode(self, table: Table) -> Float32[Tensor, "row input"]:
        """Encode the inputs of a table. The target and other columns may be missing.

        Raises:
            InputError: an input column is missing, or a value cannot be encoded.
        """
        blocks = []
        for column in self.inputs:
            found = table.column(column.name, "an input")
            with np.errstate(over="ignore"):
                block = column.encode(found).astype(np.float32, copy=False)
            if not (finite := np.isfinite(block).all(1)).all():
                row = int((~finite).argmax())
                raise found.fault(row, f"{quoted(found.texts[row])} is too far from the training rows for float32")
            blocks.append(block)
        return torch.from_numpy(np.concatenate(blocks, 1))

    def remarks(self, table: Table) -> list[str]:
        """Describe missing values and rare categories in new rows, where the training rows had some too.

        `encode` logs the rest: values that are missing only in new rows, and unknown categories.

        Args:
            table: a table that `encode` accepts.

        Returns:
            The lines to show.
        """
        missing, lines = [], []
        for one in self.inputs:
            column = table.column(one.name, "input")
            if one.has_missing and (count := column.texts.count("")):
                missing.append(f"{quoted(one.name)} in {count:,}")
            if isinstance(one, Category) and one.has_other and (count := one.num_others(column)):
                lines.append(
                    f"{column.where}, column {quoted(one.name)}: {count:,} of {table.num_rows:,} values are not among "
                    f"the {len(one.categories):,} most frequent categories of the training rows and are encoded as one"
                )
        if missing:
            lines.insert(0, f"{table.where}: missing values: {', '.join(missing)} of {table.num_rows:,} rows")
        return lines

    def to_json(self) -> str:
        """Serialise the encoder to JSON, which `from_json` reads."""
        inputs = [column_to_plain(column) for column in self.inputs]
        return json.dumps({"format": _FORMAT, "inputs": inputs, "target": asdict(self.target)}, indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> "TableEncoder":
        """Restore an encoder that `to_json` wrote.

        Args:
            text: the JSON text.
            where: where the text is from, for messages.

        Raises:
            InputError: the text is not the JSON of an encoder. The message says what is wrong.
        """
        with reading(where, "the encoding of a table"), named(printable(where)):
            plain = check_names(json.loads(text), ["format", "inputs", "target"])
            if type(plain["format"]) is not int or plain["format"] != _FORMAT:
                raise InputError(f"its format is {printable(plain['format'], 30)}, and this version reads {_FORMAT}")
            if not isinstance(plain["inputs"], list):
                raise InputError("inputs must be a list")
            with named("target"):
                target = from_plain(Target, plain["target"])
            return cls(tuple(_column(number, one) for number, one in enumerate(plain["inputs"], 1)), target)


def _column(number: int, plain: Any) -> InputColumn:
    with named(f"input {number}"):
        if not isinstance(plain, dict):
            raise InputError("it must be an object")
        kind = plain.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise unknown("kind of column", printable(kind, 30), KINDS)
        return from_plain(KINDS[kind], {name: value for name, value in plain.items() if name != "kind"})
