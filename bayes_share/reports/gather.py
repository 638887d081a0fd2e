"""Where the results of a report come from: folders of runs, files of predictions, and predictions in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bayes_share.compare import check_same, finished_runs
from bayes_share.errors import InputError
from bayes_share.evaluation.number_predictions import NumberPredictions, read_number_predictions
from bayes_share.evaluation.predictions import Predictions, check_kind
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.reading_predictions import are_of_numbers
from bayes_share.files import real_path
from bayes_share.prediction_files import is_file_of_predictions, named_files
from bayes_share.reports.results import Result
from bayes_share.reports.run_record import RunRecord
from bayes_share.run_folder import RunFolder
from bayes_share.terminal import listed, printable


def read_results(words: Sequence[str], validation: Mapping[str, Path] | None = None) -> list[Result]:
    """Read finished runs and files of predictions, all of the same test images.

    Args:
        words: folders of runs, and files as `named_files` takes them, in the order of the report.
        validation: files of predictions on validation images, by the name of those that they go with.

    Raises:
        InputError: what `read_runs` and `own_results` refuse, one name for two results, or results of other images.
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
    return [next(next_file if is_file_of_predictions(word) else next_run) for word in words]


def read_numbers(words: Sequence[str], files: Mapping[str, Path]) -> dict[str, NumberPredictions]:
    """Read files of predictions of numbers; nothing where there are none among them.

    Args:
        words: all that a report is to be about.
        files: of predictions, by name.

    Raises:
        InputError: predictions of numbers beside others, or beside runs.
    """
    paths = {name: path for name, path in files.items() if are_of_numbers(path)}
    if paths and len(paths) < len(words):
        raise InputError(
            f"{listed(list(paths))} are predictions of numbers, and what is beside them is of classes: make a report "
            f"of each"
        )
    return {name: read_number_predictions(path) for name, path in paths.items()}


def own_results(
    predictions: Mapping[str, Predictions], validation: Mapping[str, Predictions] | None = None
) -> list[Result]:
    """Results of which nothing but predictions is known.

    Args:
        predictions: on the test images, by the name to show.
        validation: on validation images, by the same names, where there are any.

    Raises:
        InputError: something else than predictions, validation predictions for none of the names or of another form,
            or predictions of other images.
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
    return results


def read_runs(paths: Sequence[Path]) -> list[Result]:
    """Read finished runs that were tested on the same images.

    Args:
        paths: their folders.

    Raises:
        InputError: a folder that is no run or is not finished, one given twice, damaged files, or runs of other data.
    """
    resolved = [real_path(path) for path in paths]
    for path in paths:
        if resolved.count(real_path(path)) > 1:
            raise InputError(f"the run {path} is given twice")
    folders = finished_runs(dict(zip(_names(paths), paths, strict=True)))
    return [_read_run(name, folder) for name, folder in folders.items()]


def _names(paths: Sequence[Path]) -> list[str]:
    names = [real_path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _read_run(name: str, folder: RunFolder) -> Result:
    test, validation = (read_class_predictions(folder.predictions(split)) for split in ("test", "validation"))
    return Result(name, test, validation, RunRecord.read(folder))


def _check_form(name: str, test: Predictions, validation: Predictions) -> None:
    """See whether validation predictions have the outputs of the test predictions."""
    if (test.likelihood, test.logits.shape[-1]) != (validation.likelihood, validation.logits.shape[-1]):
        (has, kind), (had, other) = ((one.logits.shape[-1], one.likelihood) for one in (validation, test))
        raise InputError(
            f"the validation predictions of {printable(name)} have {has} outputs ({kind}), and its test predictions "
            f"{had} ({other})"
        )
