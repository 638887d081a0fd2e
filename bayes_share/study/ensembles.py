"""The study of ensembles: the share of the gap between one network and a deep ensemble that each method closes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bayes_share.errors import InputError
from bayes_share.inference import MAP
from bayes_share.options.records import option_places
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat, run_types
from bayes_share.study.definition import check_seeds
from bayes_share.study.ensemble_rows import ROWS, chosen_rows

RUN_OPTIONS = (
    *("data", "data_dir", "split_seed", "augment", "train_images", "image_size"),
    *("model", "norm", "epochs", "batch_size", "checkpoint_minutes", "validation_images"),
)
"""The options of `RunConfig` that the study has for all runs."""

TRAINING_OPTIONS = tuple(name for name in option_places(MAP) if name != "feed")
"""The options of `MAP` that the study has for all runs whose algorithm has them; ``feed`` is set by the rows."""


class EnsembleTrial(NamedTuple):
    """One run of the study."""

    row: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the trial's run folder."""
        return f"{self.row}-seed-{self.seed}"

    @property
    def teacher(self) -> "EnsembleTrial | None":
        """The trial of the teacher; None if the run is not distilled."""
        row = ROWS[self.row].teacher
        return None if row is None else EnsembleTrial(row, self.seed)

    @property
    def needs(self) -> list[str]:
        """The names of the runs that must be finished before this one starts."""
        return [] if self.teacher is None else [self.teacher.name]


@dataclass(frozen=True)
class EnsemblePreset:
    """A preset of the study: data, network, training, and rows.

    Args:
        summary: one-line description.
        options: options of all runs.
        algorithms: options of the runs of an algorithm, which override `options`.
        rows: names of rows, or "core" or "all".
        seeds: number of seeds.
        ood: out-of-distribution sets to predict.
        corruptions: corruptions of test images to predict.
    """

    summary: str
    options: Mapping[str, Any]
    algorithms: Mapping[str, Mapping[str, Any]]
    rows: Sequence[str] = ("core",)
    seeds: int = 3
    ood: Sequence[str] = ()
    corruptions: Sequence[str] = ()


@dataclass(frozen=True)
class EnsembleStudy:
    """The runs of every row with every seed.

    Args:
        rows: names of rows, or "core" or "all". The rows that they require are added.
        seeds: number of seeds, which are 0, 1, ...
        preset: name of a preset in `ENSEMBLE_PRESETS`.
        options: options of all runs, by their names on the command line, which override the preset's.

    Raises:
        InputError: if there are no rows, or a row is unknown or given more than once.
    """

    rows: Sequence[str] = ("core",)
    seeds: int = 3
    preset: str = "digits"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen_rows(self.rows)
        check_seeds(self.seeds)

    def configs(self, runs: Path) -> dict[EnsembleTrial, RunConfig]:
        """Return the configurations of all runs by trial.

        They are ordered by seed, so that a study that is stopped early has all rows.

        Args:
            runs: folder of the runs, where students find their teachers.

        Raises:
            InputError: if the options of a row are invalid; the message names the row.
        """
        rows = [row for row in chosen_rows(self.rows) if ROWS[row].chosen_from is None]
        trials = [EnsembleTrial(row, seed) for seed in range(self.seeds) for row in rows]
        return {trial: self._config(trial, runs) for trial in trials}

    def _config(self, trial: EnsembleTrial, runs: Path) -> RunConfig:
        row, preset = ROWS[trial.row], ENSEMBLE_PRESETS[self.preset]
        given = {"algorithm": "map", **row.options}
        algorithm = str(given["algorithm"])
        try:
            known = run_types(algorithm, given.get("of"))
            common = {**preset.options, **self.options, **preset.algorithms.get(algorithm, {})}
            model = row.network(str(common.get("model", RunConfig.model)))
            of_teacher = {} if trial.teacher is None else {"teacher": str((runs / trial.teacher.name).resolve())}
            common = {name: value for name, value in common.items() if name in known}
            return from_flat({**common, **given, **of_teacher, "model": model, "seed": trial.seed})
        except InputError as error:
            raise InputError(f"row {trial.row}: {error}") from error


# Options of IVON as in the published recipe for CIFAR-10 (preset ivon-cifar10).
_CIFAR_ALGORITHMS: Mapping[str, Mapping[str, Any]] = {"ivon": {"learning_rate": 0.2, "hess_init": 0.5}}

_CIFAR: Mapping[str, Any] = {
    "data": "cifar10",
    "augment": "flip-crop",
    "norm": "batch",
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedule": "cosine",
    "weight_decay": 5e-4,
    "factor_rate": 0.5,
}
_FEW_SCORED = {"validation_images": 500}  # scoring all 5,000 would take half as long as training for an epoch


def _cifar8(images: int, epochs: int, steps: str, remark: str, rows: Sequence[str], seeds: int) -> EnsemblePreset:
    return EnsemblePreset(
        f"ResNet-8 on {images:,} images of CIFAR-10 at 8 x 8 pixels, {steps} steps: {remark}",
        {**_CIFAR, "image_size": 8, "train_images": images, "model": "resnet8", "epochs": epochs} | _FEW_SCORED,
        _CIFAR_ALGORITHMS,
        rows,
        seeds,
        ood=("svhn",),
        corruptions=("all",),
    )


ENSEMBLE_PRESETS: dict[str, EnsemblePreset] = {
    "digits": EnsemblePreset(
        "a perceptron on 100 of scikit-learn's digits, 300 steps: minutes on two cores",
        {
            "data": "digits",
            "train_images": 100,
            "model": "mlp2_64",
            "norm": "batch",
            "epochs": 60,
            "batch_size": 20,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
        },
        {"ivon": {"learning_rate": 1.0}},
    ),
    "cifar8-2500": _cifar8(2500, 400, "7,600", "the network can fit them; hours on two cores", ("core",), 3),
    "cifar8-10000": _cifar8(
        10_000,
        100,
        "7,800",
        "the network cannot fit them; hours on two cores",
        ("single", "deep-ensemble", "half-width", "normal", "signs", "distilled-single", "distilled-signs"),
        3,
    ),
    "cifar8-10000-long": _cifar8(
        10_000,
        615,
        "48,000",
        "long enough for members to become similar; hours on two cores",
        ("single", "deep-ensemble", "normal", "signs"),
        2,
    ),
    "cifar10": EnsemblePreset(
        "ResNet-20 on CIFAR-10, 160 epochs, bfloat16; days on a GPU for all core rows",
        {**_CIFAR, "model": "resnet20", "epochs": 160, "precision": "bfloat16", "capture": "on"},
        _CIFAR_ALGORITHMS,
        ood=("svhn",),
        corruptions=("all",),
    ),
}
"""The presets by name."""
