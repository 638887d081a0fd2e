"""What a run is: an algorithm and all options, as one record and as one flat, readable file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from torch import nn

from bayes_share.data import Data, load_data
from bayes_share.errors import InputError, unknown
from bayes_share.inference import ALGORITHMS, MAP, NUTS, SGHMC, SVI, Build, Execution, Inference
from bayes_share.layers.factors import FactorInit, FactorInitKind
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from bayes_share.priors import (
    WEIGHT_SCALE,
    Centre,
    FactorPriorName,
    Latents,
    Prior,
    Selector,
    WeightPriorName,
    standard_rules,
)
from bayes_share.sharing.across import LayerFactors, NormOfLayers, share_layers
from bayes_share.sharing.blocks import share_groups
from bayes_share.sharing.conversion import NormSharing
from bayes_share.sharing.members import ensemble


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on.

    Args:
        algorithm: how the network is learned.
        data: "digits", "cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "npz:DIR", "npz:FILE" or "folder:DIR".
        data_dir: folder that data sets are downloaded to and looked for in.
        split_seed: of the split into training, validation and test images, where the data have none of their own.
        augment: "auto" (what suits the data), "none", "crop" or "flip-crop".
        hold_out: classes that are left out of training, validation and test, for example [8, 9]; their test images are
            the out-of-distribution set "held-out".
        model: "lenet", "mlp", "resnet18", "resnet20", "resnet32", "resnet56", "resnet110" or "vgg11"; or of any depth D
            and width W: "mlpD_W" (D hidden layers of W units), "resnetD" or "resnetD_W" (D = 6n + 2; W channels in the
            first stage, 16 if left out), "vgg11_W" (W channels in the first layer), "wide_resnetD_W" (28_10).
        norm: "batch", "frn", "group" or "none"; null: what the network usually has.
        dropout: probability of dropout, of the network's own; 0: it has none.
        ensemble_size: members that share the network's weights; 1: a single network without factors.
        init: start of the rank-1 factors: "normal", "random_sign" or "ones".
        init_sd: standard deviation of "normal".
        init_probability: probability of +1 in "random_sign".
        norm_sharing: "shared": all members use the same norm layers; "member": each has its own.
        share_layers: which layers of one shape share one weight, with factors of their own: "none", "early" or "deep"
            (the first or second half of those that have a partner; one in the middle is in both), "all", or patterns
            of their names, with commas between: "stages.0.*,stages.1.*".
        share_factors: of each such layer: "rank1" (r and s), "scalar" (one number) or "none".
        share_norm: "own": each such layer is followed by a norm of its own; "shared": they share that too.
        share_templates: weights of which each such layer learns a mixture; 1: there is one, and no mixture.
        share_groups: parts that the channels of each layer are cut into; the blocks of its weight share one, with
            factors of their own. 1: it is whole, as it is wherever channels do not divide.
        latent: what has a prior, for svi, sghmc and nuts: "all", "factors" (r and s), "base" (what members share),
            "last-layer", or "auto" ("factors" of an ensemble, else "last-layer"); the rest are points.
        prior: for svi, sghmc and nuts: of weights and biases, around 0, and of norms, around 1; "normal", "laplace" or
            "cauchy".
        prior_scale: of the weights' prior, divided by the root of their fan-in.
        factor_prior: the same for r and s: "normal", "laplace", "cauchy" or "log-normal" (around 1).
        factor_prior_scale: of the factors' prior.
        factor_prior_centre: of the factors' prior: "one", or the "sign" that each starts with.
        epochs: passes over the training images.
        batch_size: images in a step; null: all training images.
        seed: of initialisation, order, augmentation and noise.
        num_samples: draws at prediction.
        validation_samples: draws in each epoch's scores on the validation images.
        checkpoint_minutes: a checkpoint is saved at least this often, and after each epoch that is long beside saving.
        execution: device, precision and the like.
    """

    algorithm: Inference[Any] = field(default_factory=MAP)
    data: str = "digits"
    data_dir: str = "data"
    split_seed: int = 0
    augment: Literal["auto", "none", "crop", "flip-crop"] = "auto"
    hold_out: tuple[int, ...] = ()
    model: str = "mlp"
    norm: Literal["batch", "frn", "group", "none"] | None = None
    dropout: float = 0.0
    ensemble_size: int = 1
    init: FactorInitKind = "normal"
    init_sd: float = 0.5
    init_probability: float = 0.5
    norm_sharing: NormSharing = "shared"
    share_layers: str = "none"
    share_factors: LayerFactors = "rank1"
    share_norm: NormOfLayers = "own"
    share_templates: int = 1
    share_groups: int = 1
    latent: Latents = "all"
    prior: WeightPriorName = "normal"
    prior_scale: float = WEIGHT_SCALE
    factor_prior: FactorPriorName = "normal"
    factor_prior_scale: float = 0.1
    factor_prior_centre: Centre = "sign"
    epochs: int = 50
    batch_size: int | None = 64
    seed: int = 0
    num_samples: int = 1
    validation_samples: int = 1
    checkpoint_minutes: float = 10.0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if self.ensemble_size < 1:
            raise InputError(f"an ensemble has at least 1 member, not {self.ensemble_size}")
        for option in ("share_templates", "share_groups"):
            if getattr(self, option) < 1:
                raise InputError(f"{option} must be at least 1, and is {getattr(self, option)}")
        if self.share_layers == "none":
            for option in ("share_factors", "share_norm", "share_templates"):
                value = getattr(self, option)
                if value != getattr(RunConfig, option):
                    raise InputError(f"{option} {value} is of layers that share, and share_layers is none")
        for option in _OF_PRIORS if not is_under_priors(self.algorithm) else ():
            value = getattr(self, option)
            if value != getattr(RunConfig, option):
                name = _flat_algorithm("algorithm", self.algorithm)["algorithm"]
                raise InputError(
                    f"{option} {value} is for algorithms under priors (svi, sghmc, nuts), and {name} has penalties "
                    f"instead: leave it out"
                )
        if min(self.num_samples, self.validation_samples) < 1:
            raise InputError(f"prediction takes at least 1 draw, not {min(self.num_samples, self.validation_samples)}")

    def load_data(self, download: bool = True) -> Data:
        """Read the data set, and download it where it is not there and may be downloaded."""
        return load_data(self.data, self.data_dir, self.split_seed, self.augment, self.hold_out, download)

    def build(self, data: Data) -> Build:
        """A function that gives a freshly initialised model for the data."""

        def build() -> Model:
            network = build_network(
                self.model,
                num_classes=data.num_classes,
                in_channels=data.in_channels,
                image_size=data.image_size,
                norm=self.norm,
                dropout=self.dropout,
            )
            if self.share_layers != "none":
                patterns = [pattern.strip() for pattern in self.share_layers.split(",")]
                which = patterns if len(patterns) > 1 else self.share_layers
                network = share_layers(network, which, self.share_factors, self.share_norm, self.share_templates)
            if self.share_groups > 1:
                network = share_groups(network, self.share_groups, indivisible="skip")
            if self.ensemble_size > 1:
                init = FactorInit(self.init, self.init_sd, self.init_probability)
                network = ensemble(network, self.ensemble_size, init, self.norm_sharing)
            return Model(network, priors=self.priors(network))

        return build

    def priors(self, network: nn.Module) -> dict[Selector, Prior]:
        """The rules for the priors of a network's parameters; none for an algorithm that has penalties instead."""
        if not is_under_priors(self.algorithm):
            return {}
        return standard_rules(
            network,
            self.latent,
            self.prior,
            self.prior_scale,
            self.factor_prior,
            self.factor_prior_scale,
            self.factor_prior_centre,
        )

    def to_flat(self) -> dict[str, Any]:
        """All options by their names on the command line, as plain values."""
        own = {name: value for name, value in asdict(self).items() if name not in ("algorithm", "execution")}
        flat = {**_flat_algorithm("algorithm", self.algorithm), **own, **asdict(self.execution)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> "RunConfig":
        """The record that `to_flat` made the values of; the rest is as the algorithm has it by default."""
        given = {**run_defaults(values["algorithm"], values.get("of")), **values}
        own = {name: _hashable(given[name]) for name in option_fields(cls) if name in given}
        execution = Execution(**{name: values[name] for name in option_fields(Execution) if name in values})
        return cls(algorithm=algorithm_from(values["algorithm"], values), execution=execution, **own)

    def to_yaml(self) -> str:
        """The file that starts the same run again."""
        return yaml.safe_dump(self.to_flat(), sort_keys=False)


_OF_PRIORS = ("latent", "prior", "prior_scale", "factor_prior", "factor_prior_scale", "factor_prior_centre")


def is_under_priors(algorithm: Inference[Any]) -> bool:
    """Whether a run has priors for all parameters: of an algorithm that samples or fits under them, or runs such a one.

    Others have penalties, which the published recipes for them set.
    """
    return is_under_priors(algorithm.of) if has_inner(type(algorithm)) else isinstance(algorithm, SVI | SGHMC | NUTS)  # type: ignore[attr-defined]


def option_fields(kind: type) -> list[str]:
    """The names of a record's fields that are options of their own, not records."""
    return [field.name for field in fields(kind) if field.name not in ("algorithm", "execution", "of")]


def algorithm_type(name: str) -> type:
    """The algorithm of a name on the command line.

    Raises:
        InputError: there is none of this name; names the nearest.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def run_defaults(name: str, inner: str | None = None) -> dict[str, Any]:
    """The options of a run whose defaults are other ones for an algorithm.

    Args:
        name: of the algorithm on the command line.
        inner: of the one that it runs, whose defaults hold where it has none.
    """
    kinds = [algorithm_type(kind) for kind in (inner, name) if kind is not None]
    return {option: value for kind in kinds for option, value in getattr(kind, "run_defaults", {}).items()}


def algorithm_from(name: str, values: Mapping[str, Any]) -> Inference[Any]:
    """An algorithm from its name and flat options; one that runs another finds that one's name under ``of``."""
    kind = algorithm_type(name)
    options = {option: _hashable(values[option]) for option in option_fields(kind) if option in values}
    if has_inner(kind):
        options["of"] = algorithm_from(values["of"], values)
    return kind(**options)


def has_inner(kind: type) -> bool:
    """Whether an algorithm runs another one."""
    return any(field.name == "of" for field in fields(kind))


def read_config(path: Path) -> dict[str, Any]:
    """The options in a file that `RunConfig.to_yaml` wrote, or that was written by hand.

    Raises:
        InputError: no such file, or one that is not a list of options and values.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read config {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"config {path} must have a line 'option: value' for each option")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def read_run_config(path: Path) -> RunConfig:
    """The config of a run; an option that is younger than the run has its default.

    Raises:
        InputError: no such file, or one that is not the config of a run; names the option that is wrong.
    """
    return RunConfig.from_flat(read_config(path))


def _flat_algorithm(key: str, algorithm: Inference[Any]) -> dict[str, Any]:
    name = next(name for name, kind in ALGORITHMS.items() if kind is type(algorithm))
    own = {option: getattr(algorithm, option) for option in option_fields(type(algorithm))}
    inner = _flat_algorithm("of", algorithm.of) if has_inner(type(algorithm)) else {}  # type: ignore[attr-defined]
    return {key: name, **own, **inner}


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
