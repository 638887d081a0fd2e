"""Load a table as inputs and targets in three parts, and new rows as inputs."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from bayes_share.data.parts import PARTS, check_parts
from bayes_share.data.source import from_where
from bayes_share.data.tables.bins import quantile_bins
from bayes_share.data.tables.column_types import kind_of
from bayes_share.data.tables.csv_table import read_csv
from bayes_share.data.tables.description import described
from bayes_share.data.tables.digest import digest_of, rows_digest
from bayes_share.data.tables.division import Indices, divide_at_random, divide_by, hold_out
from bayes_share.data.tables.encoder import TableEncoder
from bayes_share.data.tables.fitting import fit_encoder
from bayes_share.data.tables.folder import PARQUET, part_files
from bayes_share.data.tables.parquet_table import read_parquet
from bayes_share.data.tables.table import Table, quoted, stacked
from bayes_share.data.tables.target import Target, choose_likelihood, class_names_of
from bayes_share.errors import InputError, option
from bayes_share.io.reading import reading
from bayes_share.io.terminal import printable


@dataclass(frozen=True, eq=False)
class TablePart:
    """Encoded rows of a table.

    Attributes:
        inputs: ``[row, input]``.
        targets: ``[row]``, as returned by `Target.encode`.
        names: the names of the rows.
        places: the indices of the rows in the file, or in the concatenated files of a folder, from 0.
    """

    inputs: Float32[Tensor, "row input"]
    targets: Tensor
    names: tuple[str, ...]
    places: Int64[Tensor, "row"]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.inputs)

    def __repr__(self) -> str:
        """Describe the part in one line."""
        return f"TablePart({len(self):,} rows, {self.inputs.shape[1]} inputs)"

    def at(self, indices: Int64[Tensor, "chosen"]) -> "TablePart":
        """Return the rows at ``indices``, in that order."""
        names = tuple(self.names[i] for i in indices.tolist())
        return TablePart(self.inputs[indices], self.targets[indices], names, self.places[indices])


@dataclass(frozen=True, eq=False)
class TableData:
    """A table in three parts.

    Attributes:
        name: the path of the file or folder.
        train: the training rows; the encoder was fitted on them alone.
        validation: the rows for early stopping, temperature scaling and other choices.
        test: the rows for reported results.
        encoder: the fitted encoder.
        digest: identifies the values of the table, their columns and rows.
        description: a summary of how the table was read, in a few lines for the user.
        test_digest: identifies the test rows and the target; does not depend on the other parts.
    """

    name: str
    train: TablePart
    validation: TablePart
    test: TablePart
    encoder: TableEncoder
    digest: str
    test_digest: str
    description: tuple[str, ...]

    def __repr__(self) -> str:
        """Describe the table in one line."""
        parts = f"{len(self.train):,} training, {len(self.validation):,} validation, {len(self.test):,} test"
        return f"TableData({self.name!r}: {parts} rows, {self.train.inputs.shape[1]} inputs)"

    @cached_property
    def bins(self) -> tuple[tuple[float, ...], ...]:
        """The edges of each numeric input's bins, which hold about equally many training rows."""
        numbers = self.train.inputs[:, : self.encoder.num_numeric]
        return quantile_bins(numbers) if numbers.numel() else ()


def load_table(
    path: str | Path,
    target: str,
    likelihood: str | None = None,
    split_by: str | None = None,
    split_seed: int = 0,
    id_column: str | None = None,
    train_on_validation: bool = False,
) -> TableData:
    """Load a table as inputs and targets in three parts.

    Args:
        path: a CSV or Parquet file, which is split about 70/10/20; or a folder with ``train.csv``, ``test.csv`` and
            optionally ``validation.csv`` (or Parquet files, or other common names of parts).
        target: the column to predict.
        likelihood: one of `LIKELIHOODS`; required if several fit the column.
        split_by: a column to split by: dates and numbers by time, texts by groups. It is not used as an input. None:
            the split is random.
        split_seed: the seed of the split. The split does not depend on a run's seed.
        id_column: a column with the names of the rows. It is not used as an input. None: rows are named by number.
        train_on_validation: whether to add the validation rows to the training rows. The validation part is then empty.

    Raises:
        InputError: the table cannot be read or used (the message names file, row and column), or options contradict
            each other.
    """
    others = {"split_by": split_by, "id_column": id_column}
    for role, name in others.items():
        if name == target:
            raise InputError(f"{quoted(target)} is the target, and cannot also be {option(role)}")
    with reading(path, "a table"):
        path = Path(path).expanduser()
        if path.is_dir() and split_by is not None:
            raise InputError(
                f"{printable(path)} already has separate files for its parts: leave {option('split_by')} out"
            )
        parts = _read_parts(path)
        table = stacked(list(parts.values()))
        column = table.column(target, option("target"))
        for role, name in others.items():
            if name is not None:
                table.column(name, option(role))
        likelihood = choose_likelihood(column, likelihood)
        names = class_names_of(column, likelihood)
        classes = np.zeros(table.num_rows, np.int64)
        if names:
            whole = Target(target, likelihood, kind_of(column), names)
            classes = whole.encode(column).flatten().long().numpy()
        if path.is_dir():
            indices = _of_files({part: one.num_rows for part, one in parts.items()}, classes, split_seed, table.where)
        elif split_by is None:
            indices = divide_at_random(classes, split_seed, table.where)
        else:
            indices = divide_by(table.column(split_by, option("split_by")), split_seed)
        if train_on_validation:
            indices = (np.sort(np.concatenate(indices[:2])), indices[1][:0], indices[2])
        left_out = [name for name in others.values() if name is not None]
        encoder = fit_encoder(table, target, likelihood, left_out, indices[0])
        inputs, targets, row_names = encoder.encode(table), encoder.target.encode(column), table.names(id_column)
        train, validation, test = (
            TablePart(inputs[part], targets[part], tuple(row_names[row] for row in part), torch.from_numpy(part))
            for part in indices
        )
        purposes = {name: option(role) for role, name in others.items() if name is not None}
        lines = described(printable(path.name), table, encoder, purposes, indices, split_by)
        digests = digest_of(list(parts.items())), rows_digest(table, indices[2].tolist(), encoder.target)
        return TableData(printable(path), train, validation, test, encoder, *digests, lines)


def load_rows(
    path: str | Path, encoder: TableEncoder, id_column: str | None = None
) -> tuple[Float32[Tensor, "row input"], tuple[str, ...]]:
    """Load rows to predict, without targets.

    Args:
        path: a CSV or Parquet file.
        encoder: the fitted encoder.
        id_column: a column with the names of the rows. None: rows are named by number.

    Returns:
        The inputs and the names of the rows.

    Raises:
        InputError: the file cannot be read or used. The message names file, row and column.
    """
    with reading(path, "a table"):
        table = read_table(Path(path).expanduser())
        return encoder.encode(table), table.names(id_column)


def read_table(path: Path) -> Table:
    """Read the columns of a file as texts. A file without a Parquet ending is read as CSV.

    Raises:
        InputError: the file is missing, damaged or of another format.
    """
    with reading(path, "a table"):
        if not path.exists():
            raise InputError(f"{printable(path)}: no such file{from_where(path)}; give a CSV or Parquet file")
    return read_parquet(path) if path.suffix.lower() in PARQUET else read_csv(path)


def load_cells(path: str | Path, places: Int64[Tensor, "row"]) -> dict[str, list[str]]:
    """Read the cells of some rows by column. Missing values are empty texts.

    Args:
        path: see `load_table`.
        places: the indices of the rows, see `TablePart`.

    Raises:
        InputError: the file cannot be read, or has too few rows.
    """
    with reading(path, "a table"):
        table = stacked(list(_read_parts(Path(path).expanduser()).values()))
        return {name: column.at(places.tolist()) for name, column in table.columns.items()}


def _read_parts(path: Path) -> dict[str, Table]:
    """Read a file, or the file of each part in a folder."""
    return _read_folder(path) if path.is_dir() else {"train": read_table(path)}


def _read_folder(folder: Path) -> dict[str, Table]:
    paths, ending = part_files(folder, (path for path in folder.iterdir() if path.is_file()))
    check_parts(paths, printable(folder), ending)
    return {part: read_table(path) for part, path in paths.items()}


def _of_files(sizes: dict[str, int], classes: np.ndarray, split_seed: int, where: str) -> Indices:
    """Return the rows of each part, holding out a tenth of the training rows if there is no validation file."""
    ends = np.cumsum([sizes.get(part, 0) for part in PARTS])
    train, validation, test = np.split(np.arange(ends[-1]), ends[:-1])
    if not len(validation):
        train, validation = hold_out(classes[train], split_seed, where)
    return train, validation, test
