"""Numbers around a location with noise of some scale, which is known, learned or predicted by the network."""

import math
from abc import abstractmethod
from copy import deepcopy
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.models.likelihoods.base import Likelihood
from bayes_share.models.likelihoods.outputs import beside, each, one_to_one, precise, squeezed
from bayes_share.models.targets import finite
from bayes_share.tensors.units import Units, in_words

Noise = float | Literal["predicted"]
Own = TypeVar("Own", bound="LocationScale")

SMALLEST_SCALE = torch.finfo(torch.float32).eps
"""What is added to a predicted scale, in any precision: about 1.2e-7, the relative spacing of numbers in float32."""


class LocationScale(Likelihood):
    """Targets whose standardised errors, ``(target - loc) / scale``, are of one distribution.

    A network gives the locations and, where it predicts the noise, as many numbers again, behind them on the last axis:
    the scale is the softplus of such a number plus `SMALLEST_SCALE`, so that no finite output makes it 0 or infinite.

    A network gives these in the targets' own units, unless `with_units` says that its outputs are standardised.

    Args:
        noise: the scale; where it is learned, at the start. "predicted": the network gives one for each target.
        learned: whether one scale for all is learned.

    Raises:
        InputError: noise that is not positive, or both learned and predicted.
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
                    'learned=True is for one noise of all targets, and noise="predicted" gives each its own'
                )
            self.register_buffer("log_noise", None)
            return
        if isinstance(noise, bool | str) or not 0 < noise < math.inf:
            raise InputError(f"the noise is a positive standard deviation, and is {noise}")
        self._register("log_noise", noise, learned)

    @abstractmethod
    def standard_log_density(self, errors: Tensor) -> Tensor:
        """The log density of standardised errors."""

    @abstractmethod
    def standard_information(self) -> tuple[Tensor | float, Tensor | float]:
        """The Fisher information of location and scale, where the scale is 1; there is none between the two."""

    @property
    def is_predicted(self) -> bool:
        """Whether the network predicts the noise."""
        return self.log_noise is None

    def with_units(self: Own, units: Units) -> Own:
        """The same likelihood for standardised outputs: 0 is the targets' centre, and 1 their scale.

        Targets, densities, arguments and noise that is known stay in the targets' own units. Noise that is learned
        starts, and has its prior, in units of the targets' scale: ``Gaussian(0.5, learned=True)`` starts at half of it.

        Raises:
            InputError: a likelihood that has units already.

        >>> from bayes_share.models.likelihoods import Gaussian
        >>> prices = torch.tensor([100_000.0, 300_000.0])
        >>> Gaussian("predicted").with_units(Units.of(prices)).arguments(torch.tensor([[[0.5, 0.0]]]))["loc"]
        tensor([[250000.]], dtype=torch.float64)
        """
        if self.unit is not None:
            raise InputError("this likelihood has units already")
        other = deepcopy(self)
        other.register_buffer("centre", units.centre.clone())
        other.register_buffer("unit", units.scale.clone())
        if self.log_noise is not None and not isinstance(self.log_noise, nn.Parameter):
            in_units = self.log_noise.double() - units.scale.to(self.log_noise.device).log()
            other.register_buffer("log_noise", in_units.to(self.log_noise.dtype))
        return other

    def located(self, outputs: Float[Tensor, "member batch *output"]) -> tuple[Tensor, Tensor]:
        """Locations ``[member, batch, *target]``, and scales, on a batch axis of 1 where they are of all examples.

        Both are in the targets' own units; in float64 where the outputs are standardised.

        Raises:
            InputError: a number of outputs that is odd, where the network predicts the noise.
        """
        loc, scale = self._standardised(outputs)
        if self.centre is None or self.unit is None:
            return loc, scale
        return loc.double() * self.unit + self.centre, scale.double() * self.unit

    def _standardised(self, outputs: Float[Tensor, "member batch *output"]) -> tuple[Tensor, Tensor]:
        """Locations and scales as the network has them."""
        outputs = precise(outputs)
        if self.log_noise is not None:
            loc = squeezed(outputs)
            return loc, self._of_all(self.log_noise.to(loc.dtype).exp(), loc)
        loc, number = _halves(outputs)
        return squeezed(loc), squeezed(nn.functional.softplus(number) + SMALLEST_SCALE)

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """``loc`` and ``scale``."""
        loc, scale = self.located(outputs)
        return {"loc": loc, "scale": scale}

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log density, summed over the targets; these are ``[member, batch]`` where an example has one."""
        return each(self._log_densities(outputs, targets)[0]).sum(2)

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Floating point, in their own precision where they have one."""
        if targets.is_complex():
            raise InputError("the targets are complex numbers, and must be real numbers")
        targets = finite(one_to_one(targets, self.located(outputs)[0]))
        return targets if targets.is_floating_point() else targets.to(precise(outputs).dtype)

    @torch.no_grad()
    def information(
        self, outputs: Float[Tensor, "member batch *output"]
    ) -> Float[Tensor, "member batch number number"]:
        """In closed form, also for scales; it does not depend on the targets."""
        scale = self._standardised(outputs)[1]
        of_loc, of_scale = self.standard_information()
        if self.log_noise is not None:
            found = (of_loc / scale.square()).expand(squeezed(outputs).shape)
        else:
            slope = _halves(precise(outputs))[1].sigmoid()  # of softplus
            scale = scale.reshape(slope.shape)
            found = torch.cat([of_loc / scale.square(), of_scale * (slope / scale).square()], -1)
        return torch.diag_embed(each(found))

    @torch.no_grad()
    def steepness(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, ""]:
        """That of the location or, of an example where it is steeper, of what the network gives for the scale."""
        scale = self._standardised(outputs)[1]
        of_loc, of_scale = self.standard_information()
        found = of_loc / scale.square()
        if self.log_noise is None:
            slope = _halves(precise(outputs))[1].sigmoid().reshape(scale.shape)  # of softplus
            found = torch.maximum(found, of_scale * (slope / scale).square())
        return 4 * found.mean()

    def extra_repr(self) -> str:
        """Noise and whether it is learned, for printing."""
        units = "" if self.centre is None or self.unit is None else f", {Units(self.centre, self.unit)}"
        if self.log_noise is None:
            return f"noise='predicted'{units}"
        noise = self.log_noise.detach().exp() * (1 if self.unit is None else self.unit)
        return f"noise={in_words(noise)}, learned={isinstance(self.log_noise, nn.Parameter)}{units}"

    def _log_densities(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Of each target in its own units; and the scales as the network has them."""
        loc, scale = self._standardised(outputs)
        values = beside(loc, outputs, targets)
        if self.centre is not None and self.unit is not None:
            # In float64, since targets may be many units away from 0.
            values = ((values.double() - self.centre) / self.unit).to(loc.dtype)
        found = self.standard_log_density((values - loc) / scale) - scale.log()
        return (found if self.unit is None else found - self.unit.log().to(found.dtype)), scale

    def _register(self, name: str, value: float, learned: bool) -> None:
        """The log of a number, as a parameter or a buffer."""
        log = torch.tensor(math.log(value), dtype=torch.float64).to(torch.get_default_dtype())
        if learned:
            self.register_parameter(name, nn.Parameter(log))
        else:
            self.register_buffer(name, log)

    @staticmethod
    def _of_all(number: Tensor, loc: Tensor) -> Tensor:
        """One number as an argument for all targets of all examples."""
        return number.expand(len(loc), 1, *loc.shape[2:])


def _halves(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """What a network gives for locations and what for scales."""
    if outputs.ndim < 3 or outputs.shape[-1] % 2:
        raise InputError(
            f'noise="predicted" takes two outputs for each target, the location and the noise, on the last axis, and '
            f"the outputs of an example have shape {list(outputs.shape[2:])}"
        )
    loc, number = outputs.chunk(2, -1)
    return loc, number
