"""Predictive distributions of targets: mixtures over draws and members."""

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

_BISECTIONS = 200  # more than the bits of a float64, so that every bracket ends at two neighbouring floats
_FLAT = 1e-6  # rise of the cdf's log-odds per standard deviation below which a Newton step is only rounding error
_STEPS = 2000  # more than the possible doublings and halvings of a float64


class Predictive:
    """The predictive distribution of each example: an equally weighted mixture over all draws and members.

    The targets of an example are independent within a component but dependent in the mixture. Therefore `log_prob` is
    the joint log density of all targets of an example. All other quantities are marginal, for each target separately.

    Args:
        components: a `torch.distributions` distribution with batch shape ``[draw, member, example, *output]`` and an
            empty event shape. Results have the dtype of its parameters, so pass float64 parameters for float64 results.

    Raises:
        InputError: if the batch shape or the event shape is wrong.

    Two members with equal noise and different means:

    >>> from torch.distributions import Normal
    >>> both = Predictive(Normal(torch.tensor([-1.0, 1.0]).double().reshape(1, 2, 1), 1.0))
    >>> [value.item() for value in (both.mean, both.aleatoric, both.epistemic)]
    [0.0, 1.0, 1.0]
    """

    def __init__(self, components: "Distribution") -> None:
        if len(components.event_shape) or len(components.batch_shape) < 3:
            raise InputError(
                "the components must have batch shape [draw, member, example, *output] and event shape [], and have "
                f"batch shape {list(components.batch_shape)} and event shape {list(components.event_shape)}"
            )
        self.components = components

    @property
    def shape(self) -> torch.Size:
        """The shape of the targets, ``[example, *output]``."""
        return self.components.batch_shape[2:]

    @property
    def is_discrete(self) -> bool:
        """Whether targets are counts or labels, which have probabilities instead of densities."""
        return bool(self.components.support.is_discrete)  # type: ignore[union-attr]

    @cached_property
    def mean(self) -> Float[Tensor, "example *output"]:
        """The mean of the mixture.

        Raises:
            InputError: if the targets are classes, which have no mean.
        """
        return self._moment(self.components.mean).mean((0, 1))

    @cached_property
    def aleatoric(self) -> Float[Tensor, "example *output"]:
        """The mean of the components' variances: the noise of the targets.

        Raises:
            InputError: if the targets are classes, which have no variance, or all variances underflow to 0.
        """
        variances, sd = self._moment(self.components.variance), self.components.stddev
        if bool((variances < torch.finfo(variances.dtype).tiny).all()) and bool((sd > 0).any()):
            raise InputError(
                f"the variance underflows in {str(variances.dtype).removeprefix('torch.')}, as the noise is at most "
                f"{sd.max().item():.6g}: use stddev, or smaller units, in which the targets are larger numbers"
            )
        return variances.expand(self.components.batch_shape).mean((0, 1))

    @cached_property
    def epistemic(self) -> Float[Tensor, "example *output"]:
        """The variance of the components' means: the uncertainty that more data would reduce.

        Raises:
            InputError: if the targets are classes, which have no mean.
        """
        return self._moment(self.components.mean).var((0, 1), correction=0)

    @property
    def variance(self) -> Float[Tensor, "example *output"]:
        """The variance of the mixture, aleatoric plus epistemic (law of total variance).

        Raises:
            InputError: as for `aleatoric`.
        """
        return self.aleatoric + self.epistemic

    @cached_property
    def stddev(self) -> Float[Tensor, "example *output"]:
        """The standard deviation of the mixture, computed without overflow or underflow of squares.

        Raises:
            InputError: if the targets are classes, which have no standard deviation.
        """
        deviations = (self._moment(self.components.mean) - self.mean).expand(self.components.batch_shape)
        terms = torch.stack([self.components.stddev.expand(self.components.batch_shape), deviations.abs()])
        largest = terms.amax((0, 1, 2))
        unit = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
        return unit * (terms / unit).square().sum(0).mean((0, 1)).sqrt()

    def log_prob(self, targets: Num[Tensor, "example *output"]) -> Float[Tensor, "example"]:
        """Compute the joint log density, or log probability, of all targets of each example, in nats.

        It is ``-inf`` where a target is outside the support of every component, such as a negative value under an
        exponential distribution.

        Raises:
            InputError: if the targets have the wrong shape or contain NaN, a discrete distribution has no probability
                for a target, or a density is NaN, as torch's ``Normal`` gives if its variance underflows to 0.
        """
        self._check(targets)
        inside = self.components.support.check(targets).expand(self.components.batch_shape)  # type: ignore[union-attr]
        if self.is_discrete and not bool(inside.all()):
            wrong = ~inside.flatten(0, 1).any(0)
            if bool(wrong.any()):
                raise InputError(
                    f"{int(wrong.sum())} of {wrong.numel()} targets are outside the support of "
                    f"{type(self.components).__name__}, the first is {targets[wrong][0].item():.6g}"
                )
        log_probs = self._log_density(targets, inside)
        if bool((is_nan := log_probs.isnan().flatten(0, 1).any(0)).any()):
            raise InputError(
                f"the density of {type(self.components).__name__} is NaN for {int(is_nan.sum())} of {is_nan.numel()} "
                f"targets: use smaller units, in which the square of a scale does not underflow to 0"
            )
        joint = log_probs.reshape(*log_probs.shape[:3], -1).sum(-1).flatten(0, 1)
        return joint.logsumexp(0) - math.log(len(joint))

    def cdf(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """Compute the probability of at most `values`, for each target separately.

        Raises:
            InputError: if the values have the wrong shape, or the distribution has no ``cdf``.
        """
        self._check(values)
        return self._cdf(values)

    def cdf_below(self, values: Num[Tensor, "example *output"]) -> Float[Tensor, "example *output"]:
        """Compute the probability of less than `values`, which differs from `cdf` for counts.

        Raises:
            InputError: as for `cdf`.
        """
        return self.cdf(values.ceil() - 1 if self.is_discrete else values)

    def quantile(self, levels: Sequence[float]) -> Float[Tensor, "level example *output"]:
        """Compute quantiles: for each level, the smallest value whose `cdf` reaches it. For counts it is an integer.

        Count quantiles are found by bisection, others by Newton's method safeguarded by bisection.

        Args:
            levels: probabilities strictly between 0 and 1.

        Raises:
            InputError: if a level is not between 0 and 1, or the distribution has no ``cdf``.
        """
        wrong = next((level for level in levels if not 0 < level < 1), None)
        if wrong is not None:
            raise InputError(f"the level of a quantile must be between 0 and 1, and is {wrong}")
        self._moment(self.components.mean)
        # Heavy-tailed distributions may have no finite mean or variance; both searches work from any finite start.
        if self.is_discrete:
            means, sds = self.components.mean.nan_to_num(0.0, 0.0, 0.0), self.components.stddev.nan_to_num(1.0, 1.0)
            lowest, highest = (means - sds).amin((0, 1)).floor(), (means + sds).amax((0, 1)).ceil()
            return torch.stack([self._bisect(level, lowest.clamp(min=0) - 1, highest) for level in levels])
        centre, spread = self.mean.nan_to_num(0.0, 0.0, 0.0), self.stddev.nan_to_num(1.0, 1.0)
        return torch.stack([self._solve(level, centre, spread) for level in levels])

    def sample(self, count: int, generator: Generator) -> Num[Tensor, "sample example *output"]:
        """Sample the mixture: for each example draw a component, and all targets from that component.

        Args:
            count: the number of samples per example.
            generator: the random generator, on the CPU.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        device = self.components.mean.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            draws, members = self.components.batch_shape[:2]
            samples = self.components.sample(torch.Size([count])).flatten(1, 2)
            chosen = torch.randint(draws * members, (count, self.shape[0]), device=samples.device)
        index = chosen.reshape(count, 1, -1, *[1] * (samples.ndim - 3)).expand(-1, 1, -1, *samples.shape[3:])
        return samples.gather(1, index).squeeze(1)

    def _check(self, values: Tensor) -> None:
        if values.shape != self.shape:
            raise InputError(f"the targets must have shape {list(self.shape)}, and have shape {list(values.shape)}")
        if bool((bad := values.isnan()).any()):
            raise InputError(f"{int(bad.sum())} of {bad.numel()} targets are NaN")

    def _cdf(self, values: Tensor) -> Tensor:
        try:
            if self.is_discrete:  # discrete cdfs are defined on the integers from 0
                counts = values.floor()
                return torch.where(counts < 0, 0.0, self.components.cdf(counts.clamp(min=0)).mean((0, 1)))
            return self._within(self.components.cdf, values).mean((0, 1))
        except NotImplementedError:
            raise InputError(
                f"{type(self.components).__name__} has no cdf, which quantiles and intervals require"
            ) from None

    def _moment(self, values: Tensor) -> Tensor:
        """Return a mean or variance, or raise InputError for classes, whose moments are NaN in torch."""
        if self.is_discrete and bool(values.isnan().all()):
            raise InputError(
                f"{type(self.components).__name__} is a distribution of classes, which have no mean and no variance: "
                f"use log_prob, sample, or the mean of components.probs over draws and members"
            )
        return values

    @cached_property
    def _possible(self) -> Tensor:
        """A value inside each component's support, substituted for values outside it."""
        return torch.zeros_like(self.components.mean) if self.is_discrete else self.components.mean

    def _within(self, cdf: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Evaluate the components' cdf, which is 0 below and 1 above a component's support."""
        inside = self.components.support.check(values)  # type: ignore[union-attr]
        if bool(inside.all()):
            return cdf(values)
        probs = cdf(torch.where(inside, values, self._possible))
        return torch.where(inside, probs, (values > self._possible).to(probs.dtype))

    def _log_density(self, values: Tensor, inside: Tensor) -> Tensor:
        """Evaluate the components' log densities, which are ``-inf`` where `values` are not inside the support."""
        if bool(inside.all()):
            return self.components.log_prob(values)
        return torch.where(inside, self.components.log_prob(torch.where(inside, values, self._possible)), -math.inf)

    def _solve(self, level: float, centre: Tensor, spread: Tensor) -> Float[Tensor, "example *output"]:
        """Compute one quantile of a continuous mixture by Newton's method on the log-odds of the cdf.

        A Newton step is rejected if it leaves the bracket or is more than half the step before the last one (Press et
        al. 2007, "Numerical Recipes", section 9.4). Then the bracket is bisected, alternately by length and by the
        number of floats in it, which takes few steps even if scales differ by many powers of ten. A bracket with an
        open end is extended by steps that double.
        """
        info = torch.finfo(centre.dtype)
        target_odds = math.log(level) - math.log1p(-level)
        width = spread.maximum(4 * info.eps * centre.abs()).clamp(min=info.tiny)
        x = centre + width * torch.special.ndtri(torch.as_tensor(level, dtype=centre.dtype, device=centre.device))
        # After a Newton step this small, convergence is quadratic and the next step is only rounding error.
        small_step, small_odds = info.eps**0.5 / 16 * width, max(info.eps**0.5, 8 * info.eps / (level * (1 - level)))
        low, high = torch.full_like(x, -math.inf), torch.full_like(x, math.inf)
        last_step, step_before_last = torch.full_like(x, math.inf), torch.full_like(x, math.inf)
        is_done = torch.zeros_like(x, dtype=torch.bool)
        for iteration in range(_STEPS):
            cdf = self._cdf(x)
            is_below = cdf < level
            low, high = torch.where(is_below, x, low), torch.where(is_below, high, x)
            inside = self.components.support.check(x).expand(self.components.batch_shape)  # type: ignore[union-attr]
            slope = self._log_density(x, inside).exp().mean((0, 1)) / (cdf * (1 - cdf))
            odds = cdf.log() - (-cdf).log1p() - target_odds
            step = odds / slope
            new, is_open = x - step, low.isinf() | high.isinf()
            halved = _middle_float(low, high) if iteration % 2 else low + (high - low) / 2
            middle = torch.where(high.isinf(), x + width, torch.where(low.isinf(), x - width, halved))
            is_small_enough = 2 * step.abs() <= step_before_last
            is_good = (new >= low) & (new <= high) & new.isfinite() & is_small_enough & (slope * spread > _FLAT)
            is_narrow = ~is_open & ((middle <= low) | (middle >= high))
            width = torch.where(is_open & ~is_good, 2 * width, width)
            new = torch.where(is_done, x, torch.where(is_narrow, high, torch.where(is_good, new, middle)))
            moved = (new - x).abs()
            is_done |= is_narrow | (is_good & (moved <= small_step) & (odds.abs() <= small_odds))
            x, last_step, step_before_last = new, moved, last_step
            if bool(is_done.all()):
                break
        return x

    def _bisect(self, level: float, lowest: Tensor, highest: Tensor) -> Float[Tensor, "example *output"]:
        """Compute one quantile of a count distribution by bisection, widening the bracket first if necessary."""
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


def _middle_float(low: Tensor, high: Tensor) -> Tensor:
    """Return the float halfway between `low` and `high` in the sequence of all floats."""
    integer = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16}[low.dtype]
    flip = torch.iinfo(integer).max

    def as_ordered(bits: Tensor) -> Tensor:  # maps bits to integers in the order of the floats; its own inverse
        return torch.where(bits < 0, bits ^ flip, bits)

    first, second = (as_ordered(end.contiguous().view(integer)) for end in (low, high))
    return as_ordered((first & second) + ((first ^ second) >> 1)).view(low.dtype)
