"""From a file to the inputs and targets of three parts, and from a file of new rows to inputs."""

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
    """Rows of a table, as a network takes them.

    Attributes:
        inputs: ``[row, input]``.
        targets: ``[row]``, as `Target.encode` gives them.
        names: of the rows.
        places: where the rows are in the file, from 0; in a folder of files, in all of them, one after the other.
    """

    inputs: Float32[Tensor, "row input"]
    targets: Tensor
    names: tuple[str, ...]
    places: Int64[Tensor, "row"]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.inputs)

    def at(self, indices: Int64[Tensor, "chosen"]) -> "TablePart":
        """The rows at some indices, in that order."""
        names = tuple(self.names[i] for i in indices.tolist())
        return TablePart(self.inputs[indices], self.targets[indices], names, self.places[indices])


@dataclass(frozen=True, eq=False)
class TableData:
    """A table in three parts.

    Attributes:
        name: of the file or folder.
        train: the training rows, the only ones that the encoder was fitted on.
        validation: for choices.
        test: for the numbers that are reported.
        encoder: what the columns became.
        digest: the same for the same values in the same columns and rows only.
        description: what was understood of the table, in a few lines for people.
        test_digest: the same for the same test rows and target only, whatever the other parts are.
    """

    name: str
    train: TablePart
    validation: TablePart
    test: TablePart
    encoder: TableEncoder
    digest: str
    test_digest: str
    description: tuple[str, ...]

    @cached_property
    def bins(self) -> tuple[tuple[float, ...], ...]:
        """Of each input that is a number, bins with about as many training rows each."""
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
    """Read a table and make inputs and targets of it, in three parts.

    Args:
        path: a CSV or Parquet file, which is divided about 70/10/20; or a folder with ``train.csv``, ``test.csv`` and
            perhaps ``validation.csv`` (or Parquet files, or other usual names of parts).
        target: the column to predict.
        likelihood: one of `LIKELIHOODS`, where the column leaves a choice.
        split_by: a column to divide by: dates and numbers by time, texts by groups. It is no input. None: at random.
        split_seed: what is held out depends on this number and on nothing else, in particular not on a run's seed.
        id_column: a column of names for the rows. It is no input. None: their numbers.
        train_on_validation: whether validation rows become training rows too. The validation part is then empty.

    Raises:
        InputError: what cannot be read or used, with file, row and column; or options that do not fit together.
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
    """The inputs and the names of the rows of a file, which need no target.

    Args:
        path: a CSV or Parquet file.
        encoder: as it was fitted.
        id_column: a column of names for the rows. None: their numbers.

    Raises:
        InputError: what cannot be read or used, with file, row and column.
    """
    with reading(path, "a table"):
        table = read_table(Path(path).expanduser())
        return encoder.encode(table), table.names(id_column)


def read_table(path: Path) -> Table:
    """The texts of a file's columns; a file that is not called Parquet is CSV.

    Raises:
        InputError: it is missing, damaged or of another form.
    """
    with reading(path, "a table"):
        if not path.exists():
            raise InputError(f"{printable(path)}: no such file{from_where(path)}; give a CSV or Parquet file")
    return read_parquet(path) if path.suffix.lower() in PARQUET else read_csv(path)


def load_cells(path: str | Path, places: Int64[Tensor, "row"]) -> dict[str, list[str]]:
    """What is written in some rows, by column; a value that is missing is an empty text.

    Args:
        path: as of `load_table`.
        places: as a `TablePart` has them.

    Raises:
        InputError: what cannot be read, or a file that has fewer rows.
    """
    with reading(path, "a table"):
        table = stacked(list(_read_parts(Path(path).expanduser()).values()))
        return {name: column.at(places.tolist()) for name, column in table.columns.items()}


def _read_parts(path: Path) -> dict[str, Table]:
    """What is in a file, or in each of a folder's."""
    return _read_folder(path) if path.is_dir() else {"train": read_table(path)}


def _read_folder(folder: Path) -> dict[str, Table]:
    paths, ending = part_files(folder, (path for path in folder.iterdir() if path.is_file()))
    check_parts(paths, printable(folder), ending)
    return {part: read_table(path) for part, path in paths.items()}


def _of_files(sizes: dict[str, int], classes: np.ndarray, split_seed: int, where: str) -> Indices:
    """The rows of each file's part; a tenth of the training rows where no file is for validation."""
    ends = np.cumsum([sizes.get(part, 0) for part in PARTS])
    train, validation, test = np.split(np.arange(ends[-1]), ends[:-1])
    if not len(validation):
        train, validation = hold_out(classes[train], split_seed, where)
    return train, validation, test
