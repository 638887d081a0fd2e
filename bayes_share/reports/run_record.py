"""The records of a finished run besides its predictions."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayes_share.analysis.dataset_shift import train_features
from bayes_share.data.load import short_name
from bayes_share.errors import InputError
from bayes_share.io.arrays import read_arrays
from bayes_share.io.terminal import listed
from bayes_share.runs.config_file import read_run_config, to_flat
from bayes_share.runs.run_folder import RunFolder, read_history, read_summary


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The configuration, summary and history of a finished run.

    Args:
        folder: the run folder.
        config: all options, as in its config.yaml.
        summary: its summary.json, such as costs, versions and device.
        history: a record for each epoch.
    """

    folder: RunFolder
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, float]]

    @classmethod
    def read(cls, folder: RunFolder) -> "RunRecord":
        """Read the records of a finished run.

        Raises:
            InputError: if a file is missing or damaged.
        """
        return cls(folder, to_flat(read_run_config(folder.config)), read_summary(folder), read_history(folder))

    @cached_property
    def train_features(self) -> Tensor | None:
        """Features of training images, ``[member, image, feature]``; None if the run has none."""
        return train_features(self.folder)

    @cached_property
    def factors(self) -> dict[str, Tensor]:
        """The rank-1 factors of each draw, ``[draw, member, channel]`` by name; empty if there are none."""
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
        """A short description of the algorithm, with the numbers of networks and members."""
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
        """The name of the data set, without parent folders."""
        return short_name(str(self.config["data"]))

    @property
    def is_of_networks_apart(self) -> bool:
        """Whether the run is a deep ensemble of independent networks."""
        return self.config["algorithm"] == "deep-ensemble" and self.config.get("ensemble_size", 1) == 1
