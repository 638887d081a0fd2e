"""Options of weight sharing and ensembles, and the conversion of a network by them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor, nn

from bayes_share.baselines import masked, mimo, packed
from bayes_share.errors import InputError, option
from bayes_share.layers.factors import FactorForm, FactorInit
from bayes_share.sharing.blocks import share_groups
from bayes_share.sharing.cancelled_factors import freeze_cancelled_factors
from bayes_share.sharing.ensemble_conversion import ensemble
from bayes_share.sharing.layer_sharing import LayerFactors, NormOfLayers, share_layers
from bayes_share.sharing.module_names import NormSharing
from bayes_share.sharing.starts import read_starts
from bayes_share.tensors.calls import call_of

EnsembleKind = Literal["factors", "packed", "masked", "mimo"]

_FACTOR_OPTIONS = ("init", "init_sd", "init_probability", "factor_rank", "factor_form", "own", "norm_sharing")
_KIND_OPTIONS: Mapping[str, tuple[str, ...]] = {"packed": ("packed_width", "packed_groups"), "masked": ("mask_scale",)}


@dataclass(frozen=True)
class NetworkSharing:
    """The sharing options of `RunConfig`, where they are explained.

    Raises:
        InputError: if a value is out of range, or an option is given without the option that it requires.
    """

    ensemble_size: int = 1
    ensemble_kind: EnsembleKind = "factors"
    packed_width: float = 2.0
    packed_groups: int = 1
    mask_scale: float = 2.0
    init: str = "random_sign"
    init_sd: float = 0.5
    init_probability: float = 0.5
    factor_rank: int = 1
    factor_form: FactorForm = "multiplied"
    own: tuple[str, ...] = ()
    norm_sharing: NormSharing = "shared"
    share_layers: str = "none"
    share_factors: LayerFactors = "rank1"
    share_norm: NormOfLayers = "own"
    share_templates: int = 1
    share_groups: int = 1

    @classmethod
    def of_options(cls, options: Any) -> "NetworkSharing":
        """Collect the sharing options from an object.

        Args:
            options: an object with an attribute for each field, such as a `RunConfig`. None stands for the default.
        """
        values = {field.name: getattr(options, field.name) for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if value is not None})

    def __post_init__(self) -> None:
        if self.ensemble_size < 1:
            raise InputError(f"an ensemble must have at least 1 member, not {self.ensemble_size}")
        for name in ("share_templates", "share_groups"):
            if getattr(self, name) < 1:
                raise InputError(f"{option(name)} must be at least 1, and is {getattr(self, name)}")
        if self.packed_groups < 1:
            raise InputError(f"{option('packed_groups')} must be at least 1, and is {self.packed_groups}")
        if not 0 < self.packed_width < float("inf"):
            raise InputError(f"{option('packed_width')} must be positive and finite, and is {self.packed_width}")
        if self.ensemble_kind == "masked" and self.mask_scale == 1:
            raise InputError(f"{option('mask_scale')} must be above 1: with 1 all members are the same")
        read_starts(self.init, self.init_sd, self.init_probability)
        if self.ensemble_size == 1:
            for name in ("factor_rank", "factor_form", "own", "ensemble_kind"):
                if self._is_given(name):
                    raise InputError(f"{option(name)} requires {option('ensemble_size')}")
        if self.share_layers == "none":
            for name in ("share_factors", "share_norm", "share_templates"):
                if self._is_given(name):
                    raise InputError(f"{option(name)} {getattr(self, name)} requires {option('share_layers')}")
        others = {kind: names for kind, names in _KIND_OPTIONS.items() if kind != self.ensemble_kind}
        if self.ensemble_kind != "factors":
            others["factors"] = _FACTOR_OPTIONS
        for kind, names in others.items():
            for name in names:
                if self._is_given(name):
                    raise InputError(
                        f"{option(name)} requires {option('ensemble_kind')} {kind}, not {self.ensemble_kind}: "
                        "leave it out"
                    )

    @property
    def is_ruinous(self) -> bool:
        """Return whether the conversion would destroy what trained weights have learned."""
        starts = read_starts(self.init, self.init_sd, self.init_probability)
        is_new = self.ensemble_kind != "factors" or (isinstance(starts, FactorInit) and self.init != "ones")
        return self.ensemble_size > 1 and is_new

    def applied_to(self, network: nn.Module, example: Tensor) -> nn.Module:
        """Convert a network.

        Args:
            network: the plain network.
            example: inputs of the network, two examples.

        Raises:
            InputError: if the network does not support the conversion.
        """
        if self.share_layers != "none":
            patterns = [pattern.strip() for pattern in self.share_layers.split(",")]
            which = patterns if len(patterns) > 1 else self.share_layers
            network = share_layers(network, which, self.share_factors, self.share_norm, self.share_templates)
        if self.share_groups > 1:
            network = share_groups(network, self.share_groups, indivisible="skip")
        if self.ensemble_size == 1:
            return network
        if self.ensemble_kind == "packed":
            return packed(network, self.ensemble_size, self.packed_width, self.packed_groups, example=example)
        if self.ensemble_kind == "masked":
            return masked(network, self.ensemble_size, self.mask_scale, example=example)
        if self.ensemble_kind == "mimo":
            return mimo(network, self.ensemble_size, example=example)
        members = ensemble(
            network,
            self.ensemble_size,
            read_starts(self.init, self.init_sd, self.init_probability),
            self.norm_sharing,
            factor_rank=self.factor_rank,
            factor_form=self.factor_form,
            own=self.own,
        )
        # The strategy is settled later, by data: the rows of this example are equal.
        freeze_cancelled_factors(members.network, network, call_of(network, example))
        return members

    def _is_given(self, name: str) -> bool:
        return bool(getattr(self, name) != getattr(type(self), name))
