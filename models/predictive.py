"""Predictive distributions: the mixture of what draws and members say about the targets of some inputs."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor

from bayes_share.errors import InputError

if TYPE_CHECKING:
    from torch.distributions import Distribution

_BISECTIONS = 200  # more than the bits of a float64: each interval ends at two neighbouring numbers


class Predictive:
    """An equal mixture of the components of all draws and members, for each example.

    Outputs of an example are independent within a component, and not in the mixture: what a component says of one, it
    says of the others too. `log_prob` is therefore of all of an example's targets together, and everything else of each
    target by itself.

    Args:
        components: a distribution of numbers whose batch shape is ``[draw, member, example, *output]`` and whose
            event shape is empty; as ``torch.distributions`` has them. It is computed with as it is: parameters in
            float64 give results in float64.

    Raises:
        InputError: another batch or event shape.

    Two members that agree about the noise and not about the mean:

    >>> from torch.distributions import Normal
    >>> both = Predictive(Normal(torch.tensor([-1.0, 1.0]).double().reshape(1, 2, 1), 1.0))
    >>> [each.item() for each in (both.mean, both.aleatoric, both.epistemic)]
    [0.0, 1.0, 1.0]
    """

    def __init__(self, components: "Distribution") -> None:
        if len(components.event_shape) or len(components.batch_shape) < 3:
            raise InputError(
                "the components must be of batch shape [draw, member, example, *output] and of single numbers, and are "
                f"of batch shape {list(components.batch_shape)} and event shape {list(components.event_shape)}"
            )
        self.components = components

    @property
    def shape(self) -> torch.Size:
        """``[example, *output]``."""
        return self.components.batch_shape[2:]

    @property
    def is_discrete(self) -> bool:
        """Whether targets are counts or labels, with probabilities in place of densities."""
        return bool(self.components.support.is_discrete)  # type: ignore[union-attr]

    @cached_property
    def mean(self) -> Float[Tensor, "example *output"]:
        """Of the mixture."""
        return self.components.mean.mean((0, 1))

    @cached_property
    def aleatoric(self) -> Float[Tensor, "example *output"]:
        """The variance that components expect of the targets: the mean of their variances."""
        return self.components.variance.expand(self.components.batch_shape).mean((0, 1))

    @cached_property
    def epistemic(self) -> Float[Tensor, "example *output"]:
        """The variance of the components' means: what more data would take away."""
        return self.components.mean.var((0, 1), correction=0)

    @property
    def variance(self) -> Float[Tensor, "example *output"]:
        """Of the mixture, by the law of total variance: aleatoric and epistemic."""
        return self.aleatoric + self.epistemic

    def log_prob(self, targets: Num[Tensor, "example *output"]) -> Float[Tensor, "example"]:
        """The log density, or log probability, of all targets of an example together, in nats.

        Raises:
            InputError: targets of another shape, NaN, or outside the components' support, such as half a count.
        """
        self._check(targets)
        wrong = ~self.components.support.check(targets)  # type: ignore[union-attr]
        if wrong.any():
            raise InputError(
                f"targets that {type(self.components).__name__} gives no probability: {int(wrong.sum())} of "
                f"{wrong.numel()}, the first of them {targets[wrong][0].item():.6g}"
            )
        each = self.components.log_prob(targets)
        together = each.reshape(*each.shape[:3], -1).sum(-1).flatten(0, 1)
        return together.logsumexp(0) - math.log(len(together))

    def cdf(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of at most these values.

        Raises:
            InputError: values of another shape; a distribution without a ``cdf``.
        """
        self._check(values)
        return self._cdf(values)

    def cdf_below(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """The probability of less than these values, which for counts is less than `cdf`.

        Raises:
            InputError: as `cdf`.
        """
        return self.cdf(values.ceil() - 1 if self.is_discrete else values)

    def quantile(self, levels: Sequence[float]) -> Float[Tensor, "level example *output"]:
        """The smallest values below or at which the mixture has some probability; of counts, whole numbers.

        Found by bisection of `cdf`, down to neighbouring floating-point numbers.

        Args:
            levels: probabilities between 0 and 1, both excluded.

        Raises:
            InputError: another level; a distribution without a ``cdf``.
        """
        wrong = next((level for level in levels if not 0 < level < 1), None)
        if wrong is not None:
            raise InputError(f"a quantile is of a level between 0 and 1, not {wrong}")
        # A heavy tail has no mean or an infinite variance, and bisection takes any finite start.
        means = self.components.mean.nan_to_num(0.0, 0.0, 0.0).flatten(0, 1)
        step = self.components.stddev.nan_to_num(1.0, 1.0).expand(self.components.batch_shape).flatten(0, 1)
        lowest, highest = (means - step).amin(0), (means + step).amax(0)
        return torch.stack([self._bisect(level, lowest, highest) for level in levels])

    def sample(self, count: int, generator: Generator) -> Float[Tensor, "sample example *output"]:
        """Samples of the mixture: a component at random for each example, and all its outputs from that one.

        Args:
            count: how many of each example.
            generator: the source of randomness, on the CPU.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng([self.mean.device] if self.mean.is_cuda else []):
            torch.manual_seed(seed)
            draws, members = self.components.batch_shape[:2]
            each = self.components.sample(torch.Size([count])).flatten(1, 2)
            chosen = torch.randint(draws * members, (count, self.shape[0]), device=each.device)
        index = chosen.reshape(count, 1, -1, *[1] * (each.ndim - 3)).expand(-1, 1, -1, *each.shape[3:])
        return each.gather(1, index).squeeze(1)

    def _check(self, values: Tensor) -> None:
        if values.shape != self.shape:
            raise InputError(f"the targets must be of shape {list(self.shape)}, and are of {list(values.shape)}")
        if bool((bad := values.isnan()).any()):
            raise InputError(f"targets that are NaN: {int(bad.sum())} of {bad.numel()}")

    def _cdf(self, values: Tensor) -> Tensor:
        try:
            if self.is_discrete:  # whose cdf is of whole numbers from 0
                whole = values.floor()
                return torch.where(whole < 0, 0.0, self.components.cdf(whole.clamp(min=0)).mean((0, 1)))
            return self.components.cdf(values).mean((0, 1))
        except NotImplementedError:
            raise InputError(
                f"{type(self.components).__name__} has no cdf, which quantiles and intervals need"
            ) from None

    def _bisect(self, level: float, lowest: Tensor, highest: Tensor) -> Float[Tensor, "example *output"]:
        """The quantile of one level, from values that are widened until it lies between them."""
        if self.is_discrete:
            lowest, highest = torch.full_like(lowest, -1.0), highest.ceil()
        # Of a scale that is lost beside the mean no width would be left to double.
        least = torch.finfo(highest.dtype).eps * highest.abs().maximum(lowest.abs())
        width = (highest - lowest).maximum(least).clamp(min=torch.finfo(highest.dtype).tiny)
        while bool((is_above := self._cdf(lowest) >= level).any()):
            lowest, width = torch.where(is_above, lowest - width, lowest), 2 * width
        while bool((is_below := self._cdf(highest) < level).any()):
            highest, width = torch.where(is_below, highest + width, highest), 2 * width
        for _ in range(_BISECTIONS):
            middle = lowest + (highest - lowest) / 2
            if self.is_discrete:
                middle = middle.floor()
            is_between = (middle > lowest) & (middle < highest)
            if not bool(is_between.any()):
                break
            middle = torch.where(is_between, middle, highest)
            is_enough = self._cdf(middle) >= level
            lowest, highest = torch.where(is_enough, lowest, middle), torch.where(is_enough, middle, highest)
        return highest
