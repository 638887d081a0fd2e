"""The definition of a study: its options, its runs, and the summary of their results."""

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

_MAX_SEEDS = 10_000


@runtime_checkable
class Trial(Protocol):
    """One run of a study."""

    @property
    def name(self) -> str:
        """The name of the trial's run folder."""

    @property
    def seed(self) -> int:
        """The random seed of the run. Trials that differ only in the seed are repetitions."""


@runtime_checkable
class Summary(Protocol):
    """The results of all finished runs of a study."""

    def tables(self, markdown: bool = False) -> str:
        """Return the tables of results as text.

        Args:
            markdown: whether to format them in Markdown rather than for the terminal.
        """

    def write(self, folder: Path, name: str) -> None:
        """Write tables and figures.

        Args:
            folder: the folder to write into.
            name: name of the data and the network, for titles.
        """


@dataclass(frozen=True)
class GridOption:
    """An option that takes several values, for each of which the study has runs.

    Args:
        name: name of the option, in Python's spelling.
        kind: type of each value.
        default: default values.
        help: one-line description.
    """

    name: str
    kind: type
    default: Sequence[Any]
    help: str


@dataclass(frozen=True)
class Group:
    """Options of all runs, which are the fields of a record.

    Args:
        title: heading in the help.
        kind: the record.
        only: names of the fields that are options of the study; None: all fields.
    """

    title: str
    kind: type
    only: tuple[str, ...] | None = None

    @property
    def names(self) -> list[str]:
        """The names of the options."""
        return [name for name in option_places(self.kind) if self.only is None or name in self.only]


@dataclass(frozen=True)
class Preset:
    """A named set of defaults for a study.

    Args:
        summary: one-line description.
        options: defaults of the options of all runs, by their names on the command line.
        seeds: default number of seeds.
    """

    summary: str
    options: Mapping[str, Any]
    seeds: int = 5


def _no_needs(trial: Trial) -> Sequence[str]:
    """Return no required runs."""
    return ()


@dataclass(frozen=True)
class Study:
    """The definition of a study.

    Args:
        name: name on the command line.
        title: one-line description.
        description: description in the help.
        presets: presets by name, including the default preset "digits".
        grid: returns the options that define the runs, with the defaults of a preset.
        groups: the options of all runs.
        configs: returns the configurations by trial, from the preset's name, the values of the grid options, the number
            of seeds, the options of all runs, and the folder of the runs.
        summary: returns the summary, from the run folders by trial and the values of all options.
        needs: returns the names of the runs that must be finished before a trial starts.
    """

    name: str
    title: str
    description: str
    presets: Mapping[str, Preset]
    grid: Callable[[str], Sequence[GridOption]]
    groups: Sequence[Group]
    configs: Callable[[str, Mapping[str, Any], int, Mapping[str, Any], Path], Mapping[Any, RunConfig]]
    summary: Callable[[Mapping[Any, RunFolder], Mapping[str, Any]], Summary]
    needs: Callable[[Any], Sequence[str]] = _no_needs

    @property
    def run_options(self) -> list[str]:
        """The names of the options of all runs."""
        return [name for group in self.groups for name in group.names]


def check_seeds(seeds: int) -> None:
    """Check the number of seeds.

    Raises:
        InputError: if there are no seeds, or too many.
    """
    if not 1 <= seeds <= _MAX_SEEDS:
        raise InputError(f"the study requires from 1 to {_MAX_SEEDS:,} seeds, not {seeds}")


def check_once(what: str, values: Sequence[Any]) -> None:
    """Check that there are values, and no duplicates.

    Args:
        what: name of a value, for error messages.
        values: the values.

    Raises:
        InputError: if there are no values, or a value is given more than once.
    """
    if not values:
        raise InputError(f"the study requires at least one {what}")
    if twice := [value for value in values if values.count(value) > 1]:
        raise InputError(f"the study has {what} {twice[0]} more than once")


def check_settings(configs: Mapping[Any, RunConfig], needs: Callable[[Any], Sequence[str]] = _no_needs) -> Data:
    """Set up the runs of seed 0 without training, so that invalid options are found before any run starts.

    Args:
        configs: configurations by trial; all have the same data.
        needs: returns the runs that a trial requires. A trial that requires any cannot be set up before they are
            finished, and is not checked.

    Returns:
        The data.

    Raises:
        InputError: if the options of a run are invalid, or the data are a table.
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
