"""Comparison of runs: a table of scores, a table of costs and reliability diagrams."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayes_share.errors import InputError, named
from bayes_share.evaluation.pictures import reliability_picture
from bayes_share.evaluation.predictions import Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions
from bayes_share.evaluation.reading_predictions import right_answers
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.table import Cell, format_table
from bayes_share.io.terminal import listed, printable
from bayes_share.models.pairs import mean_differences
from bayes_share.runs.config_file import read_run_config, to_flat
from bayes_share.runs.costs import run_costs
from bayes_share.runs.run_folder import RunFolder, finished_run, read_summary, validation_predictions, written_again


def compare(
    runs: Mapping[str, Path], picture: Path | None, split: str = "test", files: Mapping[str, Path] | None = None
) -> str:
    """Score runs and files of predictions, and draw their reliability diagrams.

    Args:
        runs: the folder of each run, by display name.
        picture: the file for the diagrams, PNG or SVG; None draws nothing.
        split: the split of the runs, "test" or "validation".
        files: files of predictions for the same images, by display name.

    Returns:
        A table of scores, followed by a table of costs.

    Raises:
        InputError: if a folder is not a finished run, predictions are missing or damaged, or the runs were tested on
            different data.
    """
    folders = finished_runs(runs, split)
    predictions = {name: read_class_predictions(folder.predictions(split)) for name, folder in folders.items()}
    for name, path in (files or {}).items():
        if name in predictions:
            raise InputError(f"a run and a file are both called {printable(name)}: give the file another name")
        predictions[name] = read_class_predictions(path)
    check_same(predictions)
    summaries = {name: read_summary(folder) for name, folder in folders.items()}
    scores = score_table(predictions, summaries)
    if picture is not None:
        reliability_picture(predictions, picture)
    return "\n\n".join([scores, *cost_table(folders)])


def cost_table(folders: Mapping[str, RunFolder]) -> list[str]:
    """Return a heading and a table of the costs of runs; an empty list if there are no runs.

    Args:
        folders: finished runs, by name.
    """
    if not folders:
        return []
    costs = [
        {"run": name, **run_costs(to_flat(read_run_config(folder.config)), read_summary(folder))}
        for name, folder in folders.items()
    ]
    return ["Parameters, and FLOPs of a prediction:", format_table(list(costs[0]), costs)]


def score_table(
    predictions: Mapping[str, Predictions], summaries: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """Format a table of scores, with a row for each set of predictions.

    Args:
        predictions: predictions for the same images, by display name.
        summaries: the summaries of the runs among them, by the same names.
    """
    rows = [_scores(name, one, (summaries or {}).get(name, {})) for name, one in predictions.items()]
    return format_table([name for name in rows[0] if any(row[name] is not None for row in rows)], rows)


def _scores(name: str, predictions: Predictions, summary: Mapping[str, Any]) -> dict[str, Cell]:
    scores = score(predictions)
    disagreement, kl = _member_differences(predictions)
    return {
        "run": name,
        "accuracy": scores.accuracy,
        "nll": scores.nll,
        "brier": scores.brier,
        "ece": scores.ece,
        "disagreement": disagreement,
        "kl": kl,
        "parameters": summary.get("parameters"),
        "seconds": summary.get("seconds"),
    }


def _member_differences(predictions: Predictions) -> tuple[float | None, float | None]:
    """Return the disagreement and KL divergence, averaged over pairs of members; None for a single member."""
    if predictions.logits.shape[1] == 1:
        return None, None
    each = [mean_differences(problem.logits) for problem in predictions.problems()]
    disagreement, kl = (sum(values) / len(each) for values in zip(*each, strict=True))
    return disagreement, kl


def check_same(predictions: Mapping[str, Predictions]) -> None:
    """Check that predictions are for the same examples, so that they can be compared in one table.

    Args:
        predictions: predictions by display name.

    Raises:
        InputError: if the numbers of examples, the classes or the labels differ.
    """
    check_same_classes(predictions)
    for (one, first), (name, other) in pairwise(predictions.items()):
        alike = first.likelihood == other.likelihood and first.logits.shape[2:] == other.logits.shape[2:]
        if not alike or not torch.equal(first.labels.cpu(), other.labels.cpu()):
            raise InputError(
                f"{printable(one)} and {printable(name)} are predictions of different examples (their number, "
                "classes or labels differ), and cannot be compared in one table"
            )


def check_same_classes(predictions: Mapping[str, Predictions]) -> None:
    """Check that all predictions with class names have the same names in the same order.

    Args:
        predictions: predictions by display name.

    Raises:
        InputError: if the class names of two predictions differ, so that their labels have different meanings.
    """
    known = [(name, one.class_names) for name, one in predictions.items() if one.class_names is not None]
    for (one, ours), (name, theirs) in pairwise(known):
        if ours != theirs:
            raise InputError(
                f"the classes of {printable(one)} are {listed(ours, 100)}, and the classes of {printable(name)} are "
                f"{listed(theirs, 100)}: they must have the same names in the same order"
            )


def finished_runs(runs: Mapping[str, Path], split: str = "test") -> dict[str, RunFolder]:
    """Check that runs are finished and have predictions for the same examples, and return their folders.

    Args:
        runs: the folder of each run, by name.
        split: "test" or "validation".

    Raises:
        InputError: if a folder is not a finished run, predictions are missing or damaged, or the runs were tested on
            different data.
    """
    folders = {name: finished_run(path) for name, path in runs.items()}
    for folder in folders.values() if split == "validation" else ():
        with named(printable(folder.path)):
            validation_predictions(folder)
    first: tuple[RunFolder, Tensor] | None = None
    for folder in folders.values():
        try:
            answers = right_answers(folder.predictions(split))
        except InputError as error:
            raise InputError(f"{error}; {written_again(folder)}") from error
        first = first or (folder, answers)
        is_same = first[1].dtype == answers.dtype and torch.equal(first[1], answers)
        if not is_same or _have_other_examples(first[0], folder):
            raise InputError(
                f"{first[0].path} and {folder.path} have different test examples ({_data(first[0])} and "
                f"{_data(folder)}), and cannot be compared in one table: evaluate them separately"
            )
    return folders


def _have_other_examples(one: RunFolder, other: RunFolder) -> bool:
    """Return whether the recorded test examples of two runs differ. Their labels may be equal, if sorted by class."""
    ours, theirs = map(read_summary, (one, other))
    # Older runs recorded none, or the encoded inputs of a table.
    return any(ours[name] != theirs[name] for name in ("test_images", "test_rows") if name in ours and name in theirs)


def _data(folder: RunFolder) -> str:
    """Describe the data of a run, with the options that affect how it is split."""
    config = to_flat(read_run_config(folder.config))
    more = [
        f"{name} {config[name]}"
        for name in ("target", "split_by", "split_seed", "hold_out", "image_size")
        if config.get(name)
    ]
    return ", ".join([str(config.get("data")), *more])
