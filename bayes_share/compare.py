"""Runs side by side: a table of their scores and a picture of their calibration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayes_share.config import read_run_config
from bayes_share.errors import InputError
from bayes_share.evaluation.pictures import reliability_picture
from bayes_share.evaluation.predictions import Predictions, read_predictions
from bayes_share.evaluation.scores import score
from bayes_share.evaluation.table import Cell, format_table
from bayes_share.models.pairs import mean_differences
from bayes_share.run_folder import RunFolder, finished_run, read_summary, written_again


def compare(runs: Mapping[str, Path], picture: Path, split: str = "test") -> str:
    """Score runs and draw their reliability.

    Args:
        runs: the folder of each run, by the name to show.
        picture: the file to draw into, PNG or SVG.
        split: "test" or "validation".

    Returns:
        The scores, a line for each run, and below them what each network costs.

    Raises:
        InputError: a folder that is no run, one that has no predictions yet, damaged ones, or runs on different data.
    """
    folders = finished_runs(runs, split)
    predictions = {name: read_predictions(folder.predictions(split)) for name, folder in folders.items()}
    summaries = {name: read_summary(folder) for name, folder in folders.items()}
    rows = [_scores(name, predictions[name], summary) for name, summary in summaries.items()]
    costs = [{"run": name, **summary["costs"]} for name, summary in summaries.items()]
    reliability_picture(predictions, picture)
    columns = ["run", "members", "stored", "used", "base", "member", "factor", "flops"]
    figures = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return "\n\n".join([format_table(figures, rows), "One network of each run:", format_table(columns, costs)])


def _scores(name: str, predictions: Predictions, summary: dict[str, Any]) -> dict[str, Cell]:
    scores = score(predictions)
    disagreement, kl = _of_members(predictions)
    return {
        "run": name,
        "accuracy": scores.accuracy,
        "nll": scores.nll,
        "brier": scores.brier,
        "ece": scores.ece,
        "disagreement": disagreement,
        "kl": kl,
        "parameters": summary["parameters"],
        "seconds": summary["seconds"],
    }


def _of_members(predictions: Predictions) -> tuple[float | None, float | None]:
    """The disagreement and the KL of two members, the means over pairs; None of one network."""
    if predictions.logits.shape[1] == 1:
        return None, None
    each = [mean_differences(problem.logits) for problem in predictions.problems()]
    disagreement, kl = (sum(values) / len(each) for values in zip(*each, strict=True))
    return disagreement, kl


def finished_runs(runs: Mapping[str, Path], split: str = "test") -> dict[str, RunFolder]:
    """The folders of runs that can stand in one table: finished, and with predictions for the same images.

    Args:
        runs: the folder of each run, by name.
        split: "test" or "validation".

    Raises:
        InputError: a folder that is no run, one that has no predictions yet, damaged ones, or runs on different data.
    """
    folders = {name: finished_run(path) for name, path in runs.items()}
    first: tuple[RunFolder, Tensor] | None = None
    for folder in folders.values():
        try:
            labels = read_predictions(folder.predictions(split)).labels
        except InputError as error:
            raise InputError(f"{error}; {written_again(folder)}") from error
        first = first or (folder, labels)
        if not torch.equal(first[1], labels) or _have_other_images(first[0], folder):
            raise InputError(
                f"{first[0].path} and {folder.path} are runs on different data ({_data(first[0])} and "
                f"{_data(folder)}): their test images or labels differ, and their figures do not go into one table; "
                f"evaluate them one by one"
            )
    return folders


def _have_other_images(one: RunFolder, other: RunFolder) -> bool:
    """Whether runs noted other test images; sets that are sorted by class may have the same labels."""
    ours, theirs = (read_summary(folder).get("test_images") for folder in (one, other))
    return None not in (ours, theirs) and ours != theirs  # older runs did not note them


def _data(folder: RunFolder) -> str:
    """The data of a run, with what decides which of its images are in which part."""
    config = read_run_config(folder.config).to_flat()
    more = [f"{name} {config[name]}" for name in ("split_seed", "hold_out", "image_size") if config.get(name)]
    return ", ".join([str(config.get("data")), *more])
