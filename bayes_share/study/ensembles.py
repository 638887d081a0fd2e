"""The study of ensembles: how much of the gap from one network to a deep ensemble each way closes, and its price."""

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
"""The options of a run that the study takes for all of its runs."""

TRAINING_OPTIONS = tuple(name for name in option_places(MAP) if name != "feed")
"""The options of `MAP` that it takes for all runs which have them; how members are fed is a matter of rows."""


class EnsembleTrial(NamedTuple):
    """One run of the study."""

    row: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.row}-seed-{self.seed}"

    @property
    def teacher(self) -> "EnsembleTrial | None":
        """The run that it is distilled from."""
        row = ROWS[self.row].teacher
        return None if row is None else EnsembleTrial(row, self.seed)

    @property
    def needs(self) -> list[str]:
        """The runs that have to be finished before it begins."""
        return [] if self.teacher is None else [self.teacher.name]


@dataclass(frozen=True)
class EnsemblePreset:
    """Data, network and training, and what is run on them.

    Args:
        summary: in one line.
        options: of every run.
        algorithms: options of the runs of an algorithm, in place of those.
        rows: names, "core" or "all".
        seeds: how many.
        ood: out-of-distribution sets that runs are tried on.
        corruptions: of test images that they are tried on.
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
    """Every row with every seed, each a run of its own.

    Args:
        rows: names, "core" or "all"; the rows that these need are run too.
        seeds: how many; they count from 0.
        preset: a name in `ENSEMBLE_PRESETS`.
        options: of every run, by their names on the command line, in place of the preset's.

    Raises:
        InputError: no row, one twice, or a name that is not known.
    """

    rows: Sequence[str] = ("core",)
    seeds: int = 3
    preset: str = "digits"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chosen_rows(self.rows)
        check_seeds(self.seeds)

    def configs(self, runs: Path) -> dict[EnsembleTrial, RunConfig]:
        """The runs, seed by seed, so that a study that is stopped half way has all rows.

        Args:
            runs: the folder that they will be in, where students look for their teachers.

        Raises:
            InputError: a row that cannot be; names it.
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


# Rates of IVON and SVI as in the published recipes for CIFAR-10 (presets ivon-cifar10 and rank1-cifar10).
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


_FEW_SCORED = {"validation_images": 500}  # 5,000 would take half as long as the epoch


def _cifar8(images: int, epochs: int, steps: str, what: str, rows: Sequence[str], seeds: int) -> EnsemblePreset:
    return EnsemblePreset(
        f"ResNet-8 on {images:,} images of CIFAR-10 at 8 x 8 pixels, {steps} steps: {what}",
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
    "cifar8-2500": _cifar8(2500, 400, "7,600", "the network fits them; hours on two cores", ("core",), 3),
    "cifar8-10000": _cifar8(
        10_000,
        100,
        "7,800",
        "it does not fit them; hours on two cores",
        ("single", "deep-ensemble", "half-width", "normal", "signs", "distilled-single", "distilled-signs"),
        3,
    ),
    "cifar8-10000-long": _cifar8(
        10_000,
        615,
        "48,000",
        "members have time to drift together; hours on two cores",
        ("single", "deep-ensemble", "normal", "signs"),
        2,
    ),
    "cifar10": EnsemblePreset(
        "ResNet-20 on CIFAR-10, 160 epochs, bfloat16; days on a GPU for all core rows",
        {**_CIFAR, "model": "resnet20", "epochs": 160, "precision": "bfloat16"},
        _CIFAR_ALGORITHMS,
        ood=("svhn",),
        corruptions=("all",),
    ),
}
"""By name."""
