"""The base class of regression likelihoods, with a location and a fixed, learned or predicted noise scale."""

import math
from abc import abstractmethod
from copy import deepcopy
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.likelihoods.base import Likelihood
from bayes_share.models.likelihoods.outputs import flatten_targets, one_to_one, precise, squeezed, targets_like
from bayes_share.models.targets import finite
from bayes_share.tensors.units import Units, in_words

Noise = float | Literal["predicted"]
Own = TypeVar("Own", bound="LocationScale")

SMALLEST_SCALE = torch.finfo(torch.float32).eps
"""The constant added to a predicted scale, in any precision: the machine epsilon of float32, about 1.2e-7."""


class LocationScale(Likelihood):
    """Targets whose standardised errors ``(target - loc) / scale`` follow one distribution.

    The outputs of the network are the locations. If the network predicts the noise, as many outputs follow on the last
    axis: each scale is the softplus of one of them plus `SMALLEST_SCALE`, so it is positive and finite for every finite
    output.

    Outputs are in the targets' units, except after `with_units`, when they are standardised.

    Args:
        noise: the scale; its initial value if `learned`. "predicted": the network predicts a scale for each target.
        learned: whether a single scale, shared by all targets, is learned.

    Raises:
        InputError: if the noise is not positive, or both learned and predicted.
    """

    log_noise: Tensor | None
    centre: Tensor | None
    unit: Tensor | None

    def __init__(self, noise: Noise = 1.0, learned: bool = False) -> None:
        super().__init__()
        self.register_buffer("centre", None)
        self.register_buffer("unit", None)
        if noise == "predicted":
            if learned:
                raise InputError(
                    'learned=True learns one noise for all targets, and noise="predicted" one for each: use one of them'
                )
            self.register_buffer("log_noise", None)
            return
        if isinstance(noise, bool | str) or not 0 < noise < math.inf:
            raise InputError(f"the noise must be a positive standard deviation, not {noise}")
        self._register("log_noise", noise, learned)

    @abstractmethod
    def standard_log_density(self, errors: Tensor) -> Tensor:
        """Compute the log density of standardised errors."""

    @abstractmethod
    def standard_information(self) -> tuple[Tensor | float, Tensor | float]:
        """Return the Fisher information of location and scale at scale 1. Their cross term is 0."""

    @property
    def is_predicted(self) -> bool:
        """Whether the network predicts the noise."""
        return self.log_noise is None

    def with_units(self: Own, units: Units) -> Own:
        """Return this likelihood for standardised outputs, where 0 is the targets' centre and 1 is one scale above it.

        Targets, densities, arguments and fixed noise stay in the targets' units. The initial value and the prior of
        learned noise are in units of the targets' scale: ``Gaussian(0.5, learned=True)`` starts at half the scale.

        Raises:
            InputError: if the likelihood already has units.

        >>> from bayes_share.models.likelihoods import Gaussian
        >>> prices = torch.tensor([100_000.0, 300_000.0])
        >>> Gaussian("predicted").with_units(Units.of(prices)).arguments(torch.tensor([[[0.5, 0.0]]]))["loc"]
        tensor([[250000.]], dtype=torch.float64)
        """
        if self.unit is not None:
            raise InputError("this likelihood already has units")
        other = deepcopy(self)
        other.register_buffer("centre", units.centre.clone())
        other.register_buffer("unit", units.scale.clone())
        if self.log_noise is not None and not isinstance(self.log_noise, nn.Parameter):
            in_units = self.log_noise.double() - units.scale.to(self.log_noise.device).log()
            other.register_buffer("log_noise", in_units.to(self.log_noise.dtype))
        return other

    def located(self, outputs: Float[Tensor, "member batch *output"]) -> tuple[Tensor, Tensor]:
        """Compute locations and scales ``[member, batch, *target]`` in the targets' units.

        Scales that are the same for all examples have a batch axis of size 1. Both are float64 if the outputs are
        standardised.

        Raises:
            InputError: if the network predicts the noise and has an odd number of outputs.
        """
        loc, scale = self._standardised(outputs)
        if self.centre is None or self.unit is None:
            return loc, scale
        return loc.double() * self.unit + self.centre, scale.double() * self.unit

    def _standardised(self, outputs: Float[Tensor, "member batch *output"]) -> tuple[Tensor, Tensor]:
        """Compute locations and scales in the units of the outputs."""
        outputs = precise(outputs)
        if self.log_noise is not None:
            loc = squeezed(outputs)
            return loc, self._expanded(self.log_noise.to(loc.dtype).exp(), loc)
        loc, raw_scale = _halves(outputs)
        return squeezed(loc), squeezed(nn.functional.softplus(raw_scale) + SMALLEST_SCALE)

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """Return ``loc`` and ``scale``."""
        loc, scale = self.located(outputs)
        return {"loc": loc, "scale": scale}

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """Compute the log density, summed over the targets; a single target per example may be ``[member, batch]``."""
        return flatten_targets(self._log_densities(outputs, targets)[0]).sum(2)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Check that the targets are finite real numbers, and convert integers to floating point."""
        if targets.is_complex():
            raise InputError("the targets must be real numbers, and are complex numbers")
        targets = finite(one_to_one(targets, self.located(outputs)[0]))
        return targets if targets.is_floating_point() else targets.to(precise(outputs).dtype)

    @torch.no_grad()
    def information(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch flat_output flat_output"]:
        """Compute the Fisher information of locations and predicted scales in closed form."""
        scale = self._standardised(outputs)[1]
        loc_information, scale_information = self.standard_information()
        if self.log_noise is not None:
            diagonal = (loc_information / scale.square()).expand(squeezed(outputs).shape)
        else:
            slope = _halves(precise(outputs))[1].sigmoid()  # the derivative of softplus
            scale = scale.reshape(slope.shape)
            diagonal = torch.cat([loc_information / scale.square(), scale_information * (slope / scale).square()], -1)
        return torch.diag_embed(flatten_targets(diagonal))

    @torch.no_grad()
    def steepness(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, ""]:
        """Compute the curvature in the location or, where it is larger, in the output for the predicted scale."""
        scale = self._standardised(outputs)[1]
        loc_information, scale_information = self.standard_information()
        curvature = loc_information / scale.square()
        if self.log_noise is None:
            slope = _halves(precise(outputs))[1].sigmoid().reshape(scale.shape)  # the derivative of softplus
            curvature = torch.maximum(curvature, scale_information * (slope / scale).square())
        return 4 * curvature.mean()

    def extra_repr(self) -> str:
        """The noise, whether it is learned, and the units, for ``repr``."""
        units = "" if self.centre is None or self.unit is None else f", {Units(self.centre, self.unit)}"
        if self.log_noise is None:
            return f"noise='predicted'{units}"
        noise = self.log_noise.detach().exp() * (1 if self.unit is None else self.unit)
        return f"noise={in_words(noise)}, learned={isinstance(self.log_noise, nn.Parameter)}{units}"

    def _log_densities(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the log density of each target in the targets' units, and the scales in the units of the outputs."""
        loc, scale = self._standardised(outputs)
        values = targets_like(loc, outputs, targets)
        if self.centre is not None and self.unit is not None:
            # In float64, because targets can be many scales away from 0.
            values = ((values.double() - self.centre) / self.unit).to(loc.dtype)
        log_density = self.standard_log_density((values - loc) / scale) - scale.log()
        if self.unit is not None:
            log_density = log_density - self.unit.log().to(log_density.dtype)
        return log_density, scale

    def _register(self, name: str, value: float, learned: bool) -> None:
        """Register the log of a value as a parameter if it is learned, otherwise as a buffer."""
        log = torch.tensor(math.log(value), dtype=torch.float64).to(torch.get_default_dtype())
        if learned:
            self.register_parameter(name, nn.Parameter(log))
        else:
            self.register_buffer(name, log)

    @staticmethod
    def _expanded(value: Tensor, loc: Tensor) -> Tensor:
        """Expand one value to the shape of an argument that is the same for all examples."""
        return value.expand(len(loc), 1, *loc.shape[2:])


def _halves(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Split outputs into locations and raw scales."""
    if outputs.ndim < 3 or outputs.shape[-1] % 2:
        raise InputError(
            f'noise="predicted" requires two outputs per target on the last axis, the location and the noise, and '
            f"the outputs of an example have shape {list(outputs.shape[2:])}"
        )
    loc, raw_scale = outputs.chunk(2, -1)
    return loc, raw_scale
