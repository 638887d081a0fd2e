"""Predictive distributions: the mixture of what draws and members say about the targets of some inputs."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Num
from torch import Generator, Tensor

from bayes_share.errors import InputError

if TYPE_CHECKING:
    from torch.distributions import Distribution

_BISECTIONS = 200  # more than the bits of a float64: each interval ends at two neighbouring numbers
_FLAT = 1e-6  # log-odds by which a cdf rises within a standard deviation: with less, a step of Newton is rounding
_STEPS = 2000  # more than there are doublings and halvings of a float64


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
        """Of the mixture.

        Raises:
            InputError: classes, which have none.
        """
        return self._moment(self.components.mean).mean((0, 1))

    @cached_property
    def aleatoric(self) -> Float[Tensor, "example *output"]:
        """The variance that components expect of the targets: the mean of their variances.

        Raises:
            InputError: classes, which have none; noise that is so small everywhere that its square is 0.
        """
        each, sd = self._moment(self.components.variance), self.components.stddev
        if bool((each < torch.finfo(each.dtype).tiny).all()) and bool((sd > 0).any()):
            raise InputError(
                f"the variance of noise as small as {sd.max().item():.6g} is lost in "
                f"{str(each.dtype).removeprefix('torch.')}: take stddev, or predict the targets in a larger unit"
            )
        return each.expand(self.components.batch_shape).mean((0, 1))

    @cached_property
    def epistemic(self) -> Float[Tensor, "example *output"]:
        """The variance of the components' means: what more data would take away.

        Raises:
            InputError: classes, which have none.
        """
        return self._moment(self.components.mean).var((0, 1), correction=0)

    @property
    def variance(self) -> Float[Tensor, "example *output"]:
        """Of the mixture, by the law of total variance: aleatoric and epistemic.

        Raises:
            InputError: as `aleatoric`.
        """
        return self.aleatoric + self.epistemic

    @cached_property
    def stddev(self) -> Float[Tensor, "example *output"]:
        """The square root of `variance`, also where the square of a deviation is no longer a float.

        Raises:
            InputError: classes, which have none.
        """
        around = (self._moment(self.components.mean) - self.mean).expand(self.components.batch_shape)
        both = torch.stack([self.components.stddev.expand(self.components.batch_shape), around.abs()])
        largest = both.amax((0, 1, 2))
        unit = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
        return unit * (both / unit).square().sum(0).mean((0, 1)).sqrt()

    def log_prob(self, targets: Num[Tensor, "example *output"]) -> Float[Tensor, "example"]:
        """The log density, or log probability, of all targets of an example together, in nats.

        It is ``-inf`` where no component can give a target, as a negative number under an exponential distribution.

        Raises:
            InputError: targets of another shape, NaN, or no counts where the components are of counts; a density that
                the distribution cannot compute, as torch's ``Normal`` where the square of its scale is 0.
        """
        self._check(targets)
        inside = self.components.support.check(targets).expand(self.components.batch_shape)  # type: ignore[union-attr]
        if self.is_discrete and not bool(inside.all()):
            wrong = ~inside.flatten(0, 1).any(0)
            if bool(wrong.any()):
                raise InputError(
                    f"targets that {type(self.components).__name__} gives no probability: {int(wrong.sum())} of "
                    f"{wrong.numel()}, the first of them {targets[wrong][0].item():.6g}"
                )
        each = self._density(targets, inside)
        if bool((lost := each.isnan().flatten(0, 1).any(0)).any()):
            raise InputError(
                f"{type(self.components).__name__} gives no density of {int(lost.sum())} of {lost.numel()} targets: "
                f"predict them in a larger unit, where the square of a scale is not 0"
            )
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

        Of counts by bisection of `cdf`; else by steps of Newton, safeguarded by bisection.

        Args:
            levels: probabilities between 0 and 1, both excluded.

        Raises:
            InputError: another level; a distribution without a ``cdf``.
        """
        wrong = next((level for level in levels if not 0 < level < 1), None)
        if wrong is not None:
            raise InputError(f"the level of a quantile must be between 0 and 1, and is {wrong}")
        self._moment(self.components.mean)
        # A heavy tail has no mean or an infinite variance, and both searches take any finite start.
        if self.is_discrete:
            means, sds = self.components.mean.nan_to_num(0.0, 0.0, 0.0), self.components.stddev.nan_to_num(1.0, 1.0)
            lowest, highest = (means - sds).amin((0, 1)).floor(), (means + sds).amax((0, 1)).ceil()
            return torch.stack([self._bisect(level, lowest.clamp(min=0) - 1, highest) for level in levels])
        centre, spread = self.mean.nan_to_num(0.0, 0.0, 0.0), self.stddev.nan_to_num(1.0, 1.0)
        return torch.stack([self._solve(level, centre, spread) for level in levels])

    def sample(self, count: int, generator: Generator) -> Num[Tensor, "sample example *output"]:
        """Samples of the mixture: a component at random for each example, and all its outputs from that one.

        Args:
            count: how many of each example.
            generator: the source of randomness, on the CPU.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        device = self.components.mean.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
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
            return self._within(self.components.cdf, values).mean((0, 1))
        except NotImplementedError:
            raise InputError(
                f"{type(self.components).__name__} has no cdf, which quantiles and intervals need"
            ) from None

    def _moment(self, values: Tensor) -> Tensor:
        """A mean or a variance; torch has NaN for those of classes."""
        if self.is_discrete and bool(values.isnan().all()):
            raise InputError(
                f"{type(self.components).__name__} is of classes, which have no mean and no variance: take log_prob, "
                f"sample, or the mean of components.probs over draws and members"
            )
        return values

    @cached_property
    def _possible(self) -> Tensor:
        """A value inside each component's support."""
        return torch.zeros_like(self.components.mean) if self.is_discrete else self.components.mean

    def _within(self, cdf: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """A cdf of values of which some may be outside a component's support, where it is 0 below and 1 above."""
        inside = self.components.support.check(values)  # type: ignore[union-attr]
        if bool(inside.all()):
            return cdf(values)
        found = cdf(torch.where(inside, values, self._possible))
        return torch.where(inside, found, (values > self._possible).to(found.dtype))

    def _density(self, values: Tensor, inside: Tensor) -> Tensor:
        """The components' log densities of values, of which only some are inside the support."""
        if bool(inside.all()):
            return self.components.log_prob(values)
        return torch.where(inside, self.components.log_prob(torch.where(inside, values, self._possible)), -math.inf)

    def _solve(self, level: float, centre: Tensor, spread: Tensor) -> Float[Tensor, "example *output"]:
        """The quantile of one level of a density, by Newton's method for the log-odds of the cdf.

        Where a step leaves the bracket, or is not half of the one before the last, the bracket is halved, by turns in
        its length and in how many floats are in it, which are few bits even where scales differ by many powers of ten;
        where it has an open end, it is widened by steps that double (Press et al. 2007, "Numerical Recipes", section
        9.4).
        """
        kind = torch.finfo(centre.dtype)
        aim = math.log(level) - math.log1p(-level)
        width = spread.maximum(4 * kind.eps * centre.abs()).clamp(min=kind.tiny)
        x = centre + width * torch.special.ndtri(torch.as_tensor(level, dtype=centre.dtype, device=centre.device))
        # After such a step of Newton, the next one is rounding.
        small, few_odds = kind.eps**0.5 / 16 * width, max(kind.eps**0.5, 8 * kind.eps / (level * (1 - level)))
        low, high = torch.full_like(x, -math.inf), torch.full_like(x, math.inf)
        last, before = torch.full_like(x, math.inf), torch.full_like(x, math.inf)
        is_found = torch.zeros_like(x, dtype=torch.bool)
        for number in range(_STEPS):
            reached = self._cdf(x)
            is_below = reached < level
            low, high = torch.where(is_below, x, low), torch.where(is_below, high, x)
            inside = self.components.support.check(x).expand(self.components.batch_shape)  # type: ignore[union-attr]
            slope = self._density(x, inside).exp().mean((0, 1)) / (reached * (1 - reached))
            odds = reached.log() - (-reached).log1p() - aim
            step = odds / slope
            new, is_open = x - step, low.isinf() | high.isinf()
            halved = _halfway(low, high) if number % 2 else low + (high - low) / 2
            middle = torch.where(high.isinf(), x + width, torch.where(low.isinf(), x - width, halved))
            is_good = (
                (new >= low) & (new <= high) & new.isfinite() & (2 * step.abs() <= before) & (slope * spread > _FLAT)
            )
            is_narrow = ~is_open & ((middle <= low) | (middle >= high))
            width = torch.where(is_open & ~is_good, 2 * width, width)
            new = torch.where(is_found, x, torch.where(is_narrow, high, torch.where(is_good, new, middle)))
            moved = (new - x).abs()
            is_found |= is_narrow | (is_good & (moved <= small) & (odds.abs() <= few_odds))
            x, last, before = new, moved, last
            if bool(is_found.all()):
                break
        return x

    def _bisect(self, level: float, lowest: Tensor, highest: Tensor) -> Float[Tensor, "example *output"]:
        """The quantile of one level of counts, between two that are moved apart until it is."""
        width = (highest - lowest).clamp(min=1.0)
        while bool((is_below := self._cdf(highest) < level).any()):
            highest, width = torch.where(is_below, highest + width, highest), 2 * width
        while bool((is_above := self._cdf(lowest) >= level).any()):
            lowest, width = torch.where(is_above, (lowest - width).clamp(min=-1), lowest), 2 * width
        for _ in range(_BISECTIONS):
            middle = (lowest + (highest - lowest) / 2).floor()
            is_between = (middle > lowest) & (middle < highest)
            if not bool(is_between.any()):
                break
            middle = torch.where(is_between, middle, highest)
            is_enough = self._cdf(middle) >= level
            lowest, highest = torch.where(is_enough, lowest, middle), torch.where(is_enough, middle, highest)
        return highest


def _halfway(low: Tensor, high: Tensor) -> Tensor:
    """The float with as many floats between `low` and it as between it and `high`."""
    kind = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16}[low.dtype]
    flip = torch.iinfo(kind).max

    def in_order(bits: Tensor) -> Tensor:  # its own inverse
        return torch.where(bits < 0, bits ^ flip, bits)

    first, second = (in_order(end.contiguous().view(kind)) for end in (low, high))
    return in_order((first & second) + ((first ^ second) >> 1)).view(low.dtype)
