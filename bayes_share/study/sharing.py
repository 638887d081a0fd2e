"""The study of sharing: one factor of weight sharing is varied at a time, and compared with plain networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from bayes_share.errors import InputError, unknown
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat
from bayes_share.study.definition import check_once, check_seeds


class Factor(NamedTuple):
    """A factor that the study varies.

    Attributes:
        levels: its values, in the order of figures.
        base: its value while another factor is varied.
        help: one-line description.
    """

    levels: tuple[str, ...]
    base: str
    help: str


FACTORS: dict[str, Factor] = {
    "layers": Factor(("none", "early", "deep", "all"), "all", "layers that share a weight: none, early, deep or all"),
    "regimes": Factor(
        ("within", "between", "combined"),
        "within",
        "sharing within one network (within), between the members of an ensemble (between), or both (combined)",
    ),
    "what": Factor(
        ("layers", "groups", "soft"),
        "layers",
        "kind of sharing: layers share a weight (layers), the blocks of each weight share one block (groups), "
        "or layers mix templates (soft)",
    ),
    "factors": Factor(
        ("none", "scalar", "rank1"), "rank1", "factors of each layer that shares its weight: none, scalar or rank1"
    ),
    "norms": Factor(("own", "shared"), "own", "norms after layers that share a weight: own or shared"),
}
"""The factors by their names on the command line."""

SIZES = {"ensemble_size": 4, "share_groups": 2, "share_templates": 2}
"""Default numbers of members, groups and templates, of the settings that have any."""

RUN_OPTIONS = (
    *("data", "data_dir", "split_seed", "augment", "model", "norm", "dropout", *SIZES),
    *("init", "init_sd", "init_probability", "norm_sharing", "epochs", "batch_size"),
)
"""The options of `RunConfig` that the study has for all runs."""


class Setting(NamedTuple):
    """A network and the sharing of its weights.

    Attributes:
        model: name of the network.
        layers: layers that share a weight: "none", "early", "deep" or "all".
        factors: factors of each of these layers: "none", "scalar" or "rank1".
        norm: norm after each of these layers: "own" or "shared".
        templates: number of templates that each of these layers mixes.
        groups: number of groups into which the channels of each weight are divided.
        members: number of members of the ensemble.
    """

    model: str
    layers: str = "none"
    factors: str = "rank1"
    norm: str = "own"
    templates: int = 1
    groups: int = 1
    members: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether nothing is shared."""
        return self == Setting(self.model)

    @property
    def name(self) -> str:
        """The part of the names of the setting's run folders that precedes the seed."""
        if self.is_plain:
            return f"plain-{self.model}"
        parts = {
            "layers": self.layers if self.layers != "none" else None,
            "factors": self.factors if self.factors != "rank1" else None,
            "norm": self.norm if self.norm != "own" else None,
            "templates": self.templates if self.templates > 1 else None,
            "groups": self.groups if self.groups > 1 else None,
            "members": self.members if self.members > 1 else None,
        }
        return "-".join(f"{part}-{value}" for part, value in parts.items() if value is not None)

    @property
    def label(self) -> str:
        """The name of the setting in tables and figures."""
        if self.is_plain:
            return self.model
        factors = {"rank1": "", "scalar": ", scalars", "none": ", no factors"}[self.factors]
        norm = ", shared norm" if self.norm == "shared" else ""
        soft = f", {self.templates} templates" if self.templates > 1 else ""
        parts = [f"{self.layers} layers{factors}{norm}{soft}"] if self.layers != "none" else []
        parts += [f"{self.groups} groups"] if self.groups > 1 else []
        parts += [f"{self.members} members"] if self.members > 1 else []
        return " + ".join(parts)

    def options(self) -> dict[str, Any]:
        """Return the options of a run, by their names on the command line."""
        return {
            "model": self.model,
            "share_layers": self.layers,
            "share_factors": self.factors,
            "share_norm": self.norm,
            "share_templates": self.templates,
            "share_groups": self.groups,
            "ensemble_size": self.members,
        }


class SharingTrial(NamedTuple):
    """One run of the study."""

    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """The name of the trial's run folder."""
        return f"{self.setting.name}-seed-{self.seed}"


def setting_of(model: str, levels: Mapping[str, str], sizes: Mapping[str, int]) -> Setting:
    """Return the setting of a combination of levels. Combinations that give the same network have equal settings.

    Args:
        model: name of the network.
        levels: level of each factor.
        sizes: numbers of members, groups and templates, used by settings that have any; see `SIZES`.

    >>> base = {name: factor.base for name, factor in FACTORS.items()}
    >>> setting_of("resnet20", {**base, "regimes": "between"}, SIZES).label
    '4 members'
    """
    members = 1 if levels["regimes"] == "within" else sizes["ensemble_size"]
    if levels["regimes"] == "between":
        return Setting(model, members=members)
    if levels["what"] == "groups":
        return Setting(model, groups=sizes["share_groups"], members=members)
    if levels["layers"] == "none":
        return Setting(model, members=members)
    templates = sizes["share_templates"] if levels["what"] == "soft" else 1
    return Setting(model, levels["layers"], levels["factors"], levels["norms"], templates, 1, members)


@dataclass(frozen=True)
class SharingStudy:
    """The runs of every setting with every seed, all with equal numbers of gradient steps.

    Args:
        levels: levels to run of each factor in `FACTORS`.
        crossed: factors of which all combinations are run; the others are varied one at a time.
        plain: names of plain networks to compare with, in addition to the base network without sharing.
        seeds: number of seeds, which are 0, 1, ...
        options: options of all runs, by their names on the command line.

    Raises:
        InputError: if a factor has no levels or duplicate ones, a name is unknown, or a number is out of range.
    """

    levels: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {name: factor.levels for name, factor in FACTORS.items()}
    )
    crossed: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    seeds: int = 5
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, levels in self.levels.items():
            check_once(name, levels)
            for level in levels:
                if level not in FACTORS[name].levels:
                    raise unknown(name, level, FACTORS[name].levels)
        for name in self.crossed:
            if name not in FACTORS:
                raise unknown("factor to cross", name, FACTORS)
        check_seeds(self.seeds)
        for name in SIZES:
            if self._sizes[name] < 2:
                raise InputError(f"{name} must be at least 2, and is {self._sizes[name]}")

    def settings(self) -> list[Setting]:
        """Return all settings without duplicates.

        They are the plain networks, the base setting, variations of one factor around it, and combinations of crossed
        factors.
        """
        model = str(self.options.get("model", RunConfig.model))
        base = {name: factor.base for name, factor in FACTORS.items()}
        combinations = [base]
        combinations += [{**base, name: level} for name, levels in self.levels.items() for level in levels]
        crossed = product(*(self.levels[name] for name in self.crossed))
        combinations += [{**base, **dict(zip(self.crossed, levels, strict=True))} for levels in crossed]
        sharing = [setting_of(model, levels, self._sizes) for levels in combinations]
        return list(dict.fromkeys([*(Setting(name) for name in (model, *self.plain)), *sharing]))

    def configs(self) -> dict[SharingTrial, RunConfig]:
        """Return the configurations of all runs by trial.

        They are ordered by seed, so that a study that is stopped early has all settings.
        """
        settings = self.settings()
        return {
            SharingTrial(setting, seed): from_flat(
                {"algorithm": "map", **self.options, **setting.options(), "seed": seed}
            )
            for seed in range(self.seeds)
            for setting in settings
        }

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: int(self.options.get(name, size)) for name, size in SIZES.items()}


@dataclass(frozen=True)
class SharingPreset:
    """A preset of the study: data, network, training, and settings.

    Args:
        summary: one-line description.
        options: options of all runs.
        plain: names of plain networks to compare with, in addition to the base network without sharing.
        levels: levels to run of each factor.
        crossed: factors of which all combinations are run.
    """

    summary: str
    options: Mapping[str, Any]
    plain: Sequence[str]
    levels: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {name: factor.levels for name, factor in FACTORS.items()}
    )
    crossed: Sequence[str] = ()


# He et al. 2015, arXiv 1512.03385, section 4.2: learning rate, divided by 10 at a half and three quarters of training,
# momentum, weight decay, batch size and augmentation. 200 epochs instead of 182.
_CIFAR10 = {
    **SIZES,
    "init": "normal",
    "data": "cifar10",
    "augment": "flip-crop",
    "capture": "on",
    "epochs": 200,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "schedule": "step",
    "milestones": (0.5, 0.75),
    "gamma": 0.1,
    "weight_decay": 1e-4,
}


def _resnet(depth: int, plain: Sequence[str]) -> SharingPreset:
    summary = (
        f"ResNet-{depth} with the same settings" if depth > 20 else "ResNet-20 on CIFAR-10, 200 epochs; hours on a GPU"
    )
    warmup = {"warmup": 0.01} if depth > 56 else {}  # as in He et al. for 110 layers
    return SharingPreset(summary, {**_CIFAR10, **warmup, "model": f"resnet{depth}"}, plain)


SHARING_PRESETS: dict[str, SharingPreset] = {
    "digits": SharingPreset(
        "a perceptron of 6 hidden layers on scikit-learn's digits, 30 epochs: minutes on two cores",
        {
            **SIZES,
            "init": "normal",
            "data": "digits",
            "model": "mlp6_64",
            "norm": "batch",
            "epochs": 30,
            "batch_size": 64,
            "learning_rate": 0.1,
        },
        ("mlp6_8", "mlp6_12", "mlp6_16", "mlp6_24", "mlp6_32", "mlp6_48", "mlp1_48", "mlp2_64", "mlp4_64"),
    ),
    # Learning rate and weight decay as usual for VGG with batch norm.
    "vgg11-cifar10": SharingPreset(
        "VGG-11 on CIFAR-10, 200 epochs: which layers, in each of three regimes; hours on a GPU",
        {**_CIFAR10, "model": "vgg11", "learning_rate": 0.05, "weight_decay": 5e-4},
        ("vgg11_16", "vgg11_24", "vgg11_32", "vgg11_48"),
        {**{name: (factor.base,) for name, factor in FACTORS.items()}, "layers": FACTORS["layers"].levels}
        | {"regimes": FACTORS["regimes"].levels},
        ("layers", "regimes"),
    ),
    "resnet20-cifar10": _resnet(20, ("resnet8", "resnet14", "resnet20_8", "resnet20_12")),
    "resnet32-cifar10": _resnet(32, ("resnet8", "resnet14", "resnet20", "resnet32_8", "resnet32_12")),
    "resnet56-cifar10": _resnet(56, ("resnet8", "resnet14", "resnet20", "resnet32", "resnet56_8", "resnet56_12")),
    "resnet110-cifar10": _resnet(
        110, ("resnet14", "resnet20", "resnet32", "resnet38", "resnet56", "resnet110_8", "resnet110_12")
    ),
}
"""The presets by name."""
