"""What a study is: its options, the runs that they ask for, and what says what the runs came to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bayes_share.data import Data
from bayes_share.data.tables.load import TableData
from bayes_share.errors import InputError
from bayes_share.inference import Execution
from bayes_share.options.records import option_places
from bayes_share.runs.config import RunConfig
from bayes_share.runs.loading import training_of
from bayes_share.runs.run_folder import RunFolder

_MOST_SEEDS = 10_000


@runtime_checkable
class Trial(Protocol):
    """One run of a study."""

    @property
    def name(self) -> str:
        """Of its folder."""

    @property
    def seed(self) -> int:
        """Of the run; trials that differ by it alone are repetitions."""


@runtime_checkable
class Summary(Protocol):
    """What the finished runs of a study say together."""

    def tables(self, markdown: bool = False) -> str:
        """Tables for the terminal or for a document."""

    def write(self, folder: Path, name: str) -> None:
        """Write tables and pictures into a folder; `name` is that of data and network."""


@dataclass(frozen=True)
class GridOption:
    """An option of a study that says which runs there are; it takes any number of values.

    Args:
        name: in Python's spelling.
        kind: of each value.
        default: the values where none are given.
        help: in one line.
    """

    name: str
    kind: type
    default: Sequence[Any]
    help: str


@dataclass(frozen=True)
class Group:
    """Options of all runs that are the fields of a record.

    Args:
        title: in the help.
        kind: the record.
        only: the fields that a study takes; None: all.
    """

    title: str
    kind: type
    only: tuple[str, ...] | None = None

    @property
    def names(self) -> list[str]:
        """The options."""
        return [name for name in option_places(self.kind) if self.only is None or name in self.only]


@dataclass(frozen=True)
class Preset:
    """Recipes by name.

    Args:
        summary: in one line.
        options: of all runs, by their names on the command line, in place of the usual defaults.
        seeds: how many there are where no number is given.
    """

    summary: str
    options: Mapping[str, Any]
    seeds: int = 5


def _nothing(trial: Trial) -> Sequence[str]:
    """Of a study whose runs do not need each other."""
    return ()


@dataclass(frozen=True)
class Study:
    """What a study is.

    Args:
        name: on the command line.
        title: in one line.
        description: for its help.
        presets: by name; "digits" is the one that is taken where none is named.
        grid: the options that say which runs there are, for the name of a preset.
        groups: the options of all runs.
        configs: the runs, from the preset's name, the values of the grid, the seeds, the options of all runs, and the
            folder of the runs.
        summary: what finished runs say, from their folders and the values of the grid.
        needs: the names of the runs that have to be finished before one begins.
    """

    name: str
    title: str
    description: str
    presets: Mapping[str, Preset]
    grid: Callable[[str], Sequence[GridOption]]
    groups: Sequence[Group]
    configs: Callable[[str, Mapping[str, Any], int, Mapping[str, Any], Path], Mapping[Any, RunConfig]]
    summary: Callable[[Mapping[Any, RunFolder], Mapping[str, Any]], Summary]
    needs: Callable[[Any], Sequence[str]] = _nothing

    @property
    def run_options(self) -> list[str]:
        """The names of the options of all runs."""
        return [name for group in self.groups for name in group.names]


def check_seeds(seeds: int) -> None:
    """See whether there is a run at all, and not more than could ever be made.

    Raises:
        InputError: no seeds, or too many.
    """
    if not 1 <= seeds <= _MOST_SEEDS:
        raise InputError(f"the study requires from 1 to {_MOST_SEEDS:,} seeds, not {seeds}")


def check_once(what: str, values: Sequence[Any]) -> None:
    """See whether there are values, and none twice.

    Raises:
        InputError: which one is there twice, or that there is none.
    """
    if not values:
        raise InputError(f"the study requires at least one {what}")
    if twice := [value for value in values if values.count(value) > 1]:
        raise InputError(f"the study has {what} {twice[0]} more than once")


def check_settings(configs: Mapping[Any, RunConfig], needs: Callable[[Any], Sequence[str]] = _nothing) -> Data:
    """Set the runs of the first seed up, without a step, so that what cannot be is known before any run begins.

    Args:
        configs: by trial, all of the same data.
        needs: the runs that a trial needs: one that needs any cannot be set up before these are finished.

    Returns:
        The data.

    Raises:
        InputError: what a run would say.
    """
    data, on_cpu = next(iter(configs.values())).load_data(), Execution(device="cpu")
    if isinstance(data, TableData):
        raise InputError(f"studies require images, and {data.name} is a table")
    for trial, config in configs.items():
        if trial.seed == 0 and not needs(trial):
            try:
                training_of(config, data, on_cpu)
            except InputError as error:
                raise InputError(f"{trial.name}: {error}") from error
    return data
