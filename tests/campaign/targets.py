"""The files that are changed, their changes, the commands that then read them, and the allowed results."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.arrays import HEADER, NPY, NPZ, PICTURE
from tests.campaign.blobs import DAMAGES, NODES, SWAP, Change
from tests.campaign.check import contents
from tests.campaign.states import FORGERIES, PICKLES, STEPS
from tests.campaign.texts import CSV, JSON, YAML

Rule = str
"""The allowed results of a command that succeeds after a file it reads was changed:

- "same": the results with the original file, because the run has a record of the original;
- "any": any results, because the product has no record of the original;
- "noticed": any results, with a message on stderr;
- "others": results that differ from those with the original file, because the command must use the new content.
"""


@dataclass(frozen=True)
class Target:
    """A file that commands read.

    Args:
        path: a pattern in the folder of a case; the latest matching file is used.
        twin: the pattern of a similar file, such as that of another run.
        state: the initial state of the folder, see `world`.
        changes: the changes by name.
        readers: commands of `world.COMMANDS`, with their allowed results.
        rules: allowed results by change and command, which take precedence.
        subjects: the kinds of run. Empty: all, where half of the cases use the simplest.
    """

    path: str
    twin: str
    state: str
    changes: Mapping[str, Change]
    readers: Mapping[str, Rule]
    rules: Mapping[tuple[str, str], Rule] = field(default_factory=dict)
    subjects: tuple[str, ...] = ("map",)

    def rule(self, change: str, reader: str) -> Rule:
        """Return the allowed results of a command after a change."""
        return self.rules.get((change, reader), self.readers[reader])


_FILE = {**DAMAGES, **NODES, **SWAP}

TARGETS: dict[str, Target] = {
    "config": Target(
        "run/config.yaml",
        "other/config.yaml",
        "begun",
        {**_FILE, **YAML, **PICKLES},
        {"resume": "same", "load_run": "same"},
        subjects=(),
    ),
    "finished-config": Target(
        "run/config.yaml",
        "other/config.yaml",
        "finished",
        {**_FILE, **YAML, **PICKLES},
        {"evaluate": "same", "load_run": "same", "ood": "same", "resume": "same", "config": "any", "report": "same"},
    ),
    "metrics": Target(
        "run/metrics.csv",
        "other/metrics.csv",
        "finished",
        {**_FILE, **CSV},
        {"report": "any", "resume": "any", "evaluate": "any"},
    ),
    "summary": Target(
        "run/summary.json",
        "other/summary.json",
        "finished",
        {**_FILE, **JSON},
        {"evaluate": "any", "report": "any", "resume": "any", "ood": "any", "load_run": "any"},
    ),
    "sets": Target(
        "run/predictions/ood/sets.json",
        "run/summary.json",
        "probed",
        {**_FILE, **JSON},
        {"ood": "any", "other ood": "any", "report": "any"},
    ),
    "checkpoint": Target(
        "run/checkpoints/*.pt",
        "other/checkpoints/*.pt",
        "begun",
        {**_FILE, **STEPS},
        {"resume": "same", "load_run": "any"},
        rules={("swap", "load_run"): "same", ("step", "load_run"): "same"},
        subjects=(),
    ),
    "forged-checkpoint": Target(
        "run/checkpoints/*.pt",
        "other/checkpoints/*.pt",
        "begun",
        {**FORGERIES, **PICKLES},
        {"resume": "any", "load_run": "any"},
        subjects=(),
    ),
    "finished-checkpoint": Target(
        "run/checkpoints/*.pt",
        "other/checkpoints/*.pt",
        "finished",
        {**_FILE, **PICKLES},
        {"load_run": "same", "ood": "same", "resume": "any"},
    ),
    "teacher-config": Target(
        "teacher/config.yaml",
        "run/config.yaml",
        "begun",
        {**_FILE, **YAML, **PICKLES},
        {"resume": "same"},
        subjects=("distill",),
    ),
    "teacher-summary": Target(
        "teacher/summary.json",
        "teacher/metrics.csv",
        "begun",
        {**_FILE, **JSON},
        {"resume": "same"},
        subjects=("distill",),
    ),
    "teacher-checkpoint": Target(
        "teacher/checkpoints/*.pt",
        "run/checkpoints/*.pt",
        "begun",
        {**_FILE, **STEPS, **FORGERIES, **PICKLES},
        {"resume": "same"},
        subjects=("distill",),
    ),
    "predictions": Target(
        "run/predictions/test.npz",
        "other/predictions/test.npz",
        "probed",
        {**_FILE, **NPZ, **PICKLES},
        {"evaluate": "any", "ood": "any", "report": "any"},
    ),
    "ood-predictions": Target(
        "run/predictions/ood/x.npz",
        "run/predictions/test.npz",
        "probed",
        {**_FILE, **NPZ, **PICKLES},
        {"ood": "any", "report": "any"},
    ),
    "factors": Target(
        "run/factors.npz",
        "other/factors.npz",
        "finished",
        {**_FILE, **NPZ, **PICKLES},
        {"report": "any", "evaluate": "same"},
        subjects=("map-2", "svi-2"),
    ),
    "data": Target(
        "d.npz",
        "e.npz",
        "begun",
        {**_FILE, **NPZ, **PICKLES},
        {"resume": "same", "load_run": "same", "config": "any"},
    ),
    "data-of-finished": Target(
        "d.npz",
        "e.npz",
        "finished",
        {**_FILE, **NPZ},
        {"ood": "same", "load_run": "same", "report": "any"},
        rules={("swap", "report"): "noticed"},
    ),
    "images-from-elsewhere": Target("x.npz", "y.npz", "finished", {**_FILE, **NPZ, **PICKLES}, {"ood": "any"}),
    "images-seen-before": Target(
        "x.npz", "y.npz", "probed", {**_FILE, **NPZ}, {"ood": "any", "report": "any"}, rules={("swap", "ood"): "others"}
    ),
    "picture": Target("images/a/0.png", "images/b/1.png", "empty", {**_FILE, **PICTURE}, {"fit folder": "any"}),
    "humans": Target("humans.npy", "others.npy", "finished", {**_FILE, **NPY, **PICKLES}, {"report of humans": "any"}),
    "cifar-10-c": Target(
        "cifar/fog.npy",
        "cifar/labels.npy",
        "cifar",
        {"empty": DAMAGES["empty"], "noise": DAMAGES["noise"], **NODES, **SWAP, **HEADER, **PICKLES},
        {"cifar": "any"},
    ),
    "study": Target("study/study.yaml", "d.npz", "studied", {**_FILE, **YAML, **PICKLES}, {"go on with study": "any"}),
    "config-in-study": Target(
        "study/runs/sgd-size-1-seed-0/config.yaml",
        "study/runs/ivon-size-1-seed-0/config.yaml",
        "studied",
        {**_FILE, **YAML, **PICKLES},
        {"go on with study": "any"},
    ),
}
"""The files by name."""

WEIGHTS = {
    "cifar-10-c": 0.3,
    "study": 0.3,
    "config-in-study": 0.3,
    "humans": 0.4,
    "factors": 0.7,
    "checkpoint": 2.0,
    "forged-checkpoint": 2.0,
}
"""Relative frequencies other than 1: reports and studies take seconds."""

SLOW = ("report", "report of humans")
"""Slow commands, which are drawn less often."""

MAY_WRITE: dict[str, tuple[str, ...]] = {
    "resume": ("run/*",),
    "ood": ("run/reliability.png", "run/predictions/*"),
    "other ood": ("y.png", "run/predictions/*"),
    "evaluate": ("run/reliability.png",),
    "report": ("r.*",),
    "report of humans": ("r.*",),
    "config": ("new/*",),
    "fit folder": ("new/*",),
    "go on with study": ("study/*",),
    "cifar": ("c.png", "run/predictions/*"),
    "load_run": (),
}
"""The files that a command may change, as patterns."""

PARTS: dict[str, Callable[[Path], Any]] = {
    "resume": lambda folder: contents(folder / "run"),
    "report": lambda folder: json.loads((folder / "r.json").read_text()),
}
"""How to read the results to compare from the folder of a case; the results of other commands are their output."""
