"""Collecting the results for a report from run folders, files of predictions, and predictions in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from bayes_share.analysis.comparison import check_same, check_same_classes, finished_runs
from bayes_share.data.tables.load import TableData, load_cells
from bayes_share.errors import InputError
from bayes_share.evaluation.number_predictions import NumberPredictions, read_number_predictions
from bayes_share.evaluation.predictions import Predictions, check_kind
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.reading_predictions import are_of_numbers
from bayes_share.io.files import real_path
from bayes_share.io.prediction_files import is_file_of_predictions, named_files
from bayes_share.io.terminal import listed, printable, say
from bayes_share.reports.number_results import NumberResult
from bayes_share.reports.results import Result
from bayes_share.reports.run_record import RunRecord
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.identity import check_data
from bayes_share.runs.run_folder import RunFolder, has_validation, noted_identity
from bayes_share.tasks import is_table


def read_results(words: Sequence[str], validation: Mapping[str, Path] | None = None) -> list[Result]:
    """Read finished runs and files of class predictions, all for the same test examples.

    Args:
        words: run folders, and files in the syntax of `named_files`, in the order of the report.
        validation: files of predictions on validation examples, by the name of the test predictions.

    Raises:
        InputError: if `read_runs` or `own_results` raises InputError, a run and a file have the same name, or the
            test examples differ.
    """
    files = named_files(words)
    paths = [Path(word) for word in words if not is_file_of_predictions(word)]
    own = own_results(
        {name: read_class_predictions(path) for name, path in files.items()},
        {name: read_class_predictions(path) for name, path in (validation or {}).items()},
    )
    runs = read_runs(paths)
    for run in runs:
        if run.name in files:
            raise InputError(f"a run and a file are both called {printable(run.name)}: give the file another name")
    check_same({result.name: result.test for result in (*runs, *own)})
    next_file, next_run = iter(own), iter(runs)
    return _with_names([next(next_file if is_file_of_predictions(word) else next_run) for word in words])


def read_numbers(
    files: Mapping[str, Path], runs: Mapping[str, RunFolder] = MappingProxyType({}), split: str = "test"
) -> dict[str, NumberPredictions]:
    """Read predictions of numbers. Return an empty dict if all are predictions of classes.

    Args:
        files: files of predictions, by name.
        runs: finished runs, by name.
        split: the split of the runs, "test" or "validation".

    Raises:
        InputError: if there are predictions of both kinds, or a run and a file have the same name.
    """
    if both := [name for name in runs if name in files]:
        raise InputError(f"a run and a file are both called {printable(both[0])}: give the file another name")
    found = {**{name: folder.predictions(split) for name, folder in runs.items()}, **files}
    paths = {name: path for name, path in found.items() if are_of_numbers(path)}
    if paths and len(paths) < len(found):
        raise InputError(
            f"{listed(list(paths))} are predictions of numbers, and the others of classes: make a separate "
            "report of each kind"
        )
    return {name: read_number_predictions(path) for name, path in paths.items()}


def own_results(
    predictions: Mapping[str, Predictions], validation: Mapping[str, Predictions] | None = None
) -> list[Result]:
    """Make results from predictions without a run.

    Args:
        predictions: predictions for the test examples, by display name.
        validation: predictions for validation examples, by the same names; some or all can be missing.

    Raises:
        InputError: if a value is not a `Predictions`, validation predictions have an unknown name or other outputs than
            the test predictions, or the test examples differ.
    """
    for one in (*predictions.values(), *(validation or {}).values()):
        check_kind(one)
    unknown = [name for name in validation or {} if name not in predictions]
    if unknown:
        there = f"only test predictions of {listed(list(predictions))}" if predictions else "no test predictions"
        raise InputError(f"validation predictions are given for {listed(unknown)}, but there are {there}")
    for name, one in (validation or {}).items():
        _check_form(name, predictions[name], one)
    results = [Result(name, test, (validation or {}).get(name)) for name, test in predictions.items()]
    check_same({result.name: result.test for result in results})
    return _with_names(results)


def read_runs(paths: Sequence[Path]) -> list[Result]:
    """Read finished runs that were tested on the same examples.

    Args:
        paths: the run folders.

    Raises:
        InputError: if `named_runs` raises InputError, or files are damaged.
    """
    return _with_names([_read_run(name, folder) for name, folder in named_runs(paths).items()])


def named_runs(paths: Sequence[Path]) -> dict[str, RunFolder]:
    """Check that runs are finished and were tested on the same examples, and return them by display name.

    Args:
        paths: the run folders.

    Raises:
        InputError: if a folder is not a finished run or is given twice, files are damaged, or the test examples differ.
    """
    resolved = [real_path(path) for path in paths]
    for path in paths:
        if resolved.count(real_path(path)) > 1:
            raise InputError(f"the run {path} is given twice")
    return finished_runs(dict(zip(_names(paths), paths, strict=True)))


def number_runs(runs: Mapping[str, RunFolder]) -> list[NumberResult]:
    """Read finished runs that predict numbers.

    Args:
        runs: the runs by display name.

    Raises:
        InputError: if a file is damaged.
    """
    return [
        NumberResult(
            name,
            read_number_predictions(folder.predictions("test")),
            read_number_predictions(folder.predictions("validation")) if has_validation(folder) else None,
            RunRecord.read(folder),
        )
        for name, folder in runs.items()
    ]


def inputs_of_rows(runs: Sequence[RunRecord]) -> dict[str, list[str]] | None:
    """Return the cells of the test rows of a table, by column, without the target. Return None if there is no table.

    If the table is missing or has changed, print a message and return None.

    Args:
        runs: runs on the same data.
    """
    if not runs or not is_table(str(runs[0].config["data"])):
        return None
    config, folder = from_flat(runs[0].config), runs[0].folder
    try:
        data = config.load_data()
        assert isinstance(data, TableData)
        check_data(noted_identity(folder), data, folder.path)
        cells = load_cells(config.data.partition(":")[2], data.test.places)
    except InputError as error:
        say(f"the inputs of the rows are not shown: {error}")
        return None
    return {name: texts for name, texts in cells.items() if name not in (config.target, config.id_column)}


def _names(paths: Sequence[Path]) -> list[str]:
    names = [real_path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _read_run(name: str, folder: RunFolder) -> Result:
    validation = read_class_predictions(folder.predictions("validation")) if has_validation(folder) else None
    return Result(name, read_class_predictions(folder.predictions("test")), validation, RunRecord.read(folder))


def _with_names(results: Sequence[Result]) -> list[Result]:
    """Copy the class names to the results that have none."""
    names = next((result.test.class_names for result in results if result.test.class_names is not None), None)
    return [
        result if result.test.class_names == names else replace(result, test=result.test.named(names))
        for result in results
    ]


def _check_form(name: str, test: Predictions, validation: Predictions) -> None:
    """Check that validation predictions have the same outputs as the test predictions."""
    if (test.likelihood, test.logits.shape[-1]) != (validation.likelihood, validation.logits.shape[-1]):
        (has, kind), (had, other) = ((one.logits.shape[-1], one.likelihood) for one in (validation, test))
        raise InputError(
            f"the validation predictions of {printable(name)} have {has} outputs ({kind}), and its test predictions "
            f"have {had} ({other})"
        )
    check_same_classes({name: test, "its validation predictions": validation})
