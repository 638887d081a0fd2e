"""The study of optimizers: SGD, AdamW, IVON and SVI, for single networks and BatchEnsembles, over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bayes_share.errors import unknown
from bayes_share.options.records import option_places
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.presets import preset
from bayes_share.study.definition import check_once, check_seeds

_DRAWS_WHILE_TRAINING = 4  # for the curves; more would cost small networks as much as training does


class Trial(NamedTuple):
    """One run of the study."""

    method: str
    size: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method}-size-{self.size}-seed-{self.seed}"


@dataclass(frozen=True)
class Recipes:
    """What each method is given, and what all of them have in common.

    Args:
        summary: in one line.
        common: options of every run: data, network, epochs, batches.
        methods: options of an algorithm, by the method's name.
    """

    summary: str
    common: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]]


def _paper() -> Recipes:
    """What the presets have in common, and the rest; Rank-1 networks after Dusenberry et al. 2020, arXiv 2005.07186.

    Theirs are wide ResNets on batches of 128; here the epochs, batches and decay are those of the other methods, and a
    single network, for which they have no recipe, is Bayesian in its last layer.
    """
    presets = {method: preset(f"{method}-cifar10") for method in ("sgd", "adamw", "ivon")}
    run_options = {name for name in option_places(RunConfig) if name != "num_samples"}
    common = {name: value for name, value in presets["ivon"].items() if name in run_options} | {"init": "normal"}
    own = {method: {k: v for k, v in options.items() if k not in common} for method, options in presets.items()}
    svi = {
        "algorithm": "svi",
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 2e-4,
        "schedule": "cosine",
        "warmup": 0.025,
        "initial_scale": 0.032,
        "kl_warmup": 0.8,
        "num_samples": 64,
    }
    summary = "ResNet-20 on CIFAR-10, 200 epochs: the recipes of presets ivon-cifar10 and the like; hours on a GPU"
    return Recipes(summary, common, {**own, "svi": svi})


# Each has the lowest validation NLL of twelve settings, the mean over sizes 1 and 4 and two seeds that are not the
# study's; but for SGD's rate: with 0.3, and with 0.2, some of the study's runs diverged.
_DIGITS = Recipes(
    "an MLP on scikit-learn's digits, 30 epochs: minutes on two cores",
    {"data": "digits", "model": "mlp", "init": "normal", "epochs": 30, "batch_size": 64},
    {
        "sgd": {"algorithm": "map", "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 2e-3},
        "adamw": {"algorithm": "map", "optimizer": "adamw", "learning_rate": 0.02, "weight_decay": 1.0},
        "ivon": {"algorithm": "ivon", "learning_rate": 1.0, "weight_decay": 2e-3},
        "svi": {"algorithm": "svi", "learning_rate": 0.01},
    },
)

RECIPES: dict[str, Recipes] = {"digits": _DIGITS, "paper": _paper()}
"""By the name of the preset."""

METHODS = tuple(_DIGITS.methods)
"""The names of the methods, in the order in which they are shown."""

COMMON_OPTIONS = ("data", "data_dir", "split_seed", "augment", "model", "norm", "dropout", "epochs", "batch_size")
"""The options of a run that a study takes for all of its runs."""


@dataclass(frozen=True)
class OptimizerStudy:
    """Every method with every size and seed, each an independent run of as many gradient steps.

    Args:
        methods: "sgd", "adamw", "ivon" and "svi", or some of them.
        sizes: members of the BatchEnsembles; 1 is a single network.
        seeds: how many; they count from 0.
        preset: a name in `RECIPES`, for the hyperparameters of each method.
        options: of every run, by their names on the command line, in place of the preset's.

    Raises:
        InputError: nothing to compare, something twice, or a name that is not known.
    """

    methods: tuple[str, ...] = METHODS
    sizes: tuple[int, ...] = (1, 2, 4, 8)
    seeds: int = 5
    preset: str = "digits"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.preset not in RECIPES:
            raise unknown("preset of the study", self.preset, RECIPES)
        for method in self.methods:
            if method not in METHODS:
                raise unknown("method", method, METHODS)
        check_once("method", self.methods)
        check_once("size", self.sizes)
        check_seeds(self.seeds)

    def configs(self) -> dict[Trial, RunConfig]:
        """The runs, seed by seed, so that one that is stopped half way has all methods."""
        return {
            trial: self._config(trial)
            for trial in (
                Trial(method, size, seed)
                for seed in range(self.seeds)
                for size in self.sizes
                for method in self.methods
            )
        }

    def _config(self, trial: Trial) -> RunConfig:
        recipes = RECIPES[self.preset]
        given = {**recipes.common, **recipes.methods[trial.method], **self.options}
        config = {**given, "ensemble_size": trial.size, "seed": trial.seed}
        if config["algorithm"] != "map":  # which is a point: all of its draws are equal
            config["validation_samples"] = _DRAWS_WHILE_TRAINING
        return from_flat(config)
