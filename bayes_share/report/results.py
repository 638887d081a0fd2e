"""The runs of a report: what their folders hold, read once."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from bayes_share.arrays import read_arrays
from bayes_share.compare import finished_runs
from bayes_share.config import read_run_config
from bayes_share.conformal import validation_left
from bayes_share.data.load import short_name
from bayes_share.errors import InputError
from bayes_share.evaluation.pictures import named_problems
from bayes_share.evaluation.predictions import Predictions, read_predictions
from bayes_share.evaluation.uncertainty import Uncertainty, uncertainty
from bayes_share.files import real_path
from bayes_share.run_folder import RunFolder, read_history, read_summary
from bayes_share.shift import train_features
from bayes_share.terminal import listed

P = ParamSpec("P")
Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class RunResults:
    """A finished run.

    Args:
        name: to show.
        folder: its files.
        config: all options, as they are in its config.yaml.
        summary: what it cost.
        history: a record for each epoch.
    """

    name: str
    folder: RunFolder
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, float]]

    @cached_property
    def test(self) -> Predictions:
        """Predictions on the test images."""
        return read_predictions(self.folder.predictions("test"))

    @cached_property
    def validation(self) -> Predictions:
        """Predictions on the validation images."""
        return read_predictions(self.folder.predictions("validation"))

    @property
    def unchosen(self) -> Predictions:
        """Predictions on the validation images on which the run chose nothing; an InputError where there are none."""
        return validation_left(self.folder)

    @cached_property
    def probs(self) -> Float64[Tensor, "image class"]:
        """Of the mixture, on the test images; an InputError where they have several labels."""
        return self.test.log_probs.exp()

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """About each test image."""
        return uncertainty(self.test)

    @cached_property
    def problems(self) -> list[tuple[str, Predictions]]:
        """What the test predictions are scored as: each label by itself, with a name to show."""
        return list(named_problems(self.name, self.test))

    @cached_property
    def right(self) -> Tensor:
        """Whether the most probable class of each test image is right."""
        return self.probs.argmax(-1) == self.test.labels

    @cached_property
    def train_features(self) -> Tensor | None:
        """Features of training images ``[member, image, feature]``, where the run has them."""
        return train_features(self.folder)

    @cached_property
    def factors(self) -> dict[str, Tensor]:
        """The rank-1 factors under each draw, ``[draw, member, channel]`` by name; none where there are none."""
        path = self.folder.factors
        if not os.path.lexists(path):
            return {}
        arrays, _ = read_arrays(path, "an .npz file of rank-1 factors", remedy=": remove it")
        for name, array in arrays.items():
            if array.ndim != 3 or not array.size or array.dtype != np.float32 or not np.isfinite(array).all():
                raise InputError(f"{path} holds {listed([name])}, which is no rank-1 factor of the run: remove it")
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @property
    def method(self) -> str:
        """The algorithm, and how many networks or members it has, in a few words."""
        words, members = str(self.config["algorithm"]), self.config.get("ensemble_size", 1)
        if "of" in self.config:
            several = f"{self.config['networks']} × " if "networks" in self.config else ""
            words += f" of {several}{self.config['of']}"
        if "optimizer" in self.config:
            words += f" by {self.config['optimizer']}"
        if members > 1:
            words += f", {members} members"
        return f"{words}, {len(self.summary['kept'])} kept" if "kept" in self.summary else words

    @property
    def data(self) -> str:
        """The data set, without the folders that it lies in."""
        return short_name(str(self.config["data"]))


def once(compute: Callable[Concatenate[RunResults, P], Found]) -> Callable[Concatenate[RunResults, P], Found]:
    """A function of a run, and of more, that computes each of its results once while there is that run."""
    known: WeakKeyDictionary[RunResults, dict[Any, Found]] = WeakKeyDictionary()

    @wraps(compute)
    def remembered(run: RunResults, /, *more: P.args, **named: P.kwargs) -> Found:
        found, key = known.setdefault(run, {}), (more, *named.items())
        if key not in found:
            found[key] = compute(run, *more, **named)
        return found[key]

    return remembered


def read_runs(paths: Sequence[Path]) -> list[RunResults]:
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


def sets_in_common(runs: Sequence[RunResults], kind: Literal["ood", "corruptions"]) -> list[str]:
    """The sets that all runs were tried on that were tried on any: of one source, and as many images.

    Means over other sets would differ for that alone.
    """
    tried = [there for run in runs if (there := run.folder.sets(kind))]
    first = tried[0] if tried else {}
    return [name for name, info in first.items() if all(info.is_of_same(there.get(name)) for there in tried)]


def _names(paths: Sequence[Path]) -> list[str]:
    names = [real_path(path).name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _read_run(name: str, folder: RunFolder) -> RunResults:
    config = read_run_config(folder.config).to_flat()
    return RunResults(name, folder, config, read_summary(folder), read_history(folder))
