"""SWAG: a Gaussian fitted to snapshots of the parameters along the path of SGD."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Composed, Forward
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.draws.host_draws import normal_noise
from bayes_share.inference.draws.norms import reestimate_norms
from bayes_share.inference.methods.map import MAP, MAPState
from bayes_share.inference.step.steps import check_not_negative
from bayes_share.models.model import Model
from bayes_share.options.records import Flat
from bayes_share.tensors.seeding import generator


@dataclass
class Moments:
    """Running mean and variance of snapshots of parameters, and the deviations of the latest ones, by parameter name.

    Args:
        count: number of snapshots so far.
        mean: mean of each parameter, in float32 or float64, like all other moments.
        squares: sum of the squared deviations from the mean, updated by Welford's method (1962). The mean of squares
            minus the squared mean would lose precision for large parameters that hardly change.
        deviations: deviations of the latest snapshots, each from the mean at its time, oldest first.
    """

    count: int = 0
    mean: dict[str, Tensor] = field(default_factory=dict)
    squares: dict[str, Tensor] = field(default_factory=dict)
    deviations: list[dict[str, Tensor]] = field(default_factory=list)

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], rank: int) -> None:
        """Add a snapshot, and keep at most `rank` deviations."""
        self.count += 1
        deviations = {}
        for name, value in values.items():
            precise = value.detach().to(torch.promote_types(value.dtype, torch.float32))
            if self.count == 1:
                self.mean[name] = torch.zeros_like(precise)
                self.squares[name] = torch.zeros_like(precise)
            before = precise - self.mean[name]
            self.mean[name].add_(before / self.count)
            deviations[name] = precise - self.mean[name]
            self.squares[name].add_(before * deviations[name])
        self.deviations = [*self.deviations, deviations][-rank:] if rank else []

    @torch.no_grad()
    def draw(self, noise: torch.Generator, scale: float) -> dict[str, Tensor]:
        """Return the mean plus `scale` times a random deviation, as in equation 1 of arXiv 1902.02476."""
        coefficients = torch.randn(len(self.deviations), generator=noise, dtype=torch.float64).tolist()
        low_rank_scale = (2 * max(1, len(self.deviations) - 1)) ** -0.5
        diagonal_scale = 0.5**0.5 if self.deviations else 1.0
        values = {}
        for (name, mean), white in zip(self.mean.items(), normal_noise([*self.mean.values()], noise), strict=True):
            deviation = diagonal_scale * (self.squares[name] / self.count).sqrt() * white
            for coefficient, column in zip(coefficients, self.deviations, strict=True):
                deviation.add_(column[name], alpha=low_rank_scale * coefficient)
            values[name] = mean + scale * deviation
        return values

    def state_dict(self) -> dict[str, Any]:
        """Return the count and the moments."""
        parts = {"mean": self.mean, "squares": self.squares, "deviations": self.deviations}
        return {"count": self.count, **parts}

    def load_state_dict(self, state_dict: dict[str, Any], device: torch.device) -> None:
        """Load the result of `state_dict`, and move it to a device."""
        self.count = state_dict["count"]
        self.mean, self.squares = (_copied(state_dict[name], device) for name in ("mean", "squares"))
        self.deviations = [_copied(column, device) for column in state_dict["deviations"]]


@dataclass
class SWAGState:
    """The training of the network, the moments of its snapshots, and norm statistics of the mean and of draws."""

    point: MAPState
    moments: Moments = field(default_factory=Moments)
    norms: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def model(self) -> Model:
        """The model in training."""
        return self.point.model

    @property
    def num_parameters(self) -> int:
        """The number of parameters of the model. Shared ones count once."""
        return self.point.num_parameters

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the training, the moments and the norm statistics."""
        return {**self.point.state_dict(), "moments": self.moments.state_dict(), "norms": self.norms}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.point.load_state_dict(state_dict)
        device = next(self.model.parameters()).device
        self.moments.load_state_dict(state_dict["moments"], device)
        self.norms = [_copied(buffers, device) for buffers in state_dict["norms"]]


@dataclass(frozen=True, init=False)
class SWAG(Flat, Composed[SWAGState]):
    """Stochastic weight averaging, Gaussian (SWAG): a Gaussian around the mean of SGD's path (arXiv 1902.02476).

    Trains as `MAP`, then continues at a constant learning rate and takes snapshots of the parameters. The mean of the
    posterior is the mean of the snapshots. Its covariance is the sum of half the diagonal covariance of the snapshots
    and half a low-rank covariance of the latest ones (equation 1). In an ensemble, shared parameters and members' own
    parameters are drawn in the same way. The statistics of normalisation layers are re-estimated for each of the first
    `norm_draws` draws (see `reestimate_norms`); later draws use the statistics of the mean. The batches for this have a
    random order of the examples, however the data are sorted; custom samplers and iterables keep their own order, which
    should be random. Before the first snapshot, a draw is the network itself.

    Args:
        point: options of the training; each can be passed by its own name.
        swa_start: fraction of all steps trained with the schedule, before the learning rate becomes constant.
        swa_rate: the constant learning rate, as a multiple of `learning_rate`.
        num_snapshots: number of snapshots, evenly spaced, the last one after the last step; at most one after each
            step.
        rank: number of the latest snapshots that form the low-rank covariance. 0: only the diagonal covariance, at full
            weight.
        scale: factor of the standard deviations of the draws; 1 is the paper's posterior.
        norm_draws: number of draws for which the statistics of normalisation layers are estimated. Each takes a pass
            over the training data.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16})

    point: MAP = MAP()  # noqa: RUF009 (frozen)
    swa_start: float = 0.5
    swa_rate: float = 0.5
    num_snapshots: int = 50
    rank: int = 20
    scale: float = 1.0
    norm_draws: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.swa_start < 1:
            raise InputError(
                f"swa_start must be a fraction of all steps, at least 0 and below 1, and is {self.swa_start}"
            )
        if not 0 < self.swa_rate < float("inf"):
            raise InputError(f"swa_rate must be positive and finite, and is {self.swa_rate}")
        if self.num_snapshots < 2:
            raise InputError(f"num_snapshots must be at least 2, and is {self.num_snapshots}")
        if self.rank < 0 or self.rank == 1:
            raise InputError(f"rank must be 0 (only the diagonal) or at least 2, and is {self.rank}")
        check_not_negative(self, "scale", "norm_draws")

    def init(self, build: Build, num_data: int | float, num_steps: int) -> SWAGState:
        """Return a new model in training mode and its optimizer, without snapshots."""
        state = SWAGState(self.point.init(build, num_data, num_steps))
        stepper = state.point.stepper
        stepper.rates = stepper.clock.table(self.rate_at)
        return state

    def trainings(self, state: SWAGState) -> list[tuple[MAP, MAPState]]:
        """Return the training of the network."""
        return [(self.point, state.point)]

    def rate_at(self, step: int, num_steps: int) -> float:
        """Return the multiple of the learning rate at a step: the schedule's, then `swa_rate`."""
        if step >= self._first_constant_step(num_steps):
            return self.swa_rate
        return self.point.descent.steps.rate_at(step, num_steps)

    def after_step(self, state: SWAGState, steps: int) -> None:
        """Take a snapshot if one is due."""
        if self.is_snapshot(steps, state.point.stepper.clock.num_steps):
            state.moments.add(_trained_parameters(state.model), self.rank)

    def finish(self, state: SWAGState, batches: Iterable[Batch]) -> None:
        """Estimate the statistics of norms for the mean and for each of the first draws."""
        super().finish(state, batches)
        if state.moments.count == 0:
            return
        norms = [reestimate_norms(state.model, _mean_values(state), batches)]
        for sample in range(self.norm_draws if norms[0] else 0):
            norms.append(reestimate_norms(state.model, self._drawn_values(state, sample), batches))
        state.norms = norms

    def draw(self, state: SWAGState, sample: int) -> Forward:
        """Return the network with parameters drawn from the Gaussian, or as trained if there are no snapshots yet."""
        if state.moments.count == 0:
            return drawn(state.model)
        has_own_norms = sample + 1 < len(state.norms)
        norms = state.norms[sample + 1 if has_own_norms else 0] if state.norms else {}
        return drawn(state.model, {**self._drawn_values(state, sample), **norms})

    def keep_members(self, state: SWAGState, members: Sequence[int]) -> SWAGState:
        """Return the training of the given members and the moments of their snapshots."""

        def kept(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return state.model.kept_values(values, members)

        moments = state.moments
        deviations = [kept(each) for each in moments.deviations]
        moments = Moments(moments.count, kept(moments.mean), kept(moments.squares), deviations)
        return SWAGState(self.point.keep_members(state.point, members), moments, [kept(norms) for norms in state.norms])

    def tempering(self, num_data: int | float) -> str | None:
        """Return the scale of the deviations if it is not 1."""
        return None if self.scale == 1 else f"scale of {self.scale:g}"

    def is_snapshot(self, step: int, num_steps: int) -> bool:
        """Return whether a snapshot is taken after `step` steps.

        >>> [step for step in range(101) if SWAG(swa_start=0.6, num_snapshots=4).is_snapshot(step, 100)]
        [70, 80, 90, 100]
        """
        first = self._first_constant_step(num_steps)
        if step <= first:
            return False
        before, now = ((taken - first) * self.num_snapshots // (num_steps - first) for taken in (step - 1, step))
        return now > before

    def _first_constant_step(self, num_steps: int) -> int:
        """Return the first step at the constant learning rate."""
        return int(self.swa_start * num_steps)

    def _drawn_values(self, state: SWAGState, sample: int) -> dict[str, Tensor]:
        return _in_parameter_dtypes(state.model, state.moments.draw(generator("draw", sample), self.scale))


def _trained_parameters(model: Model) -> dict[str, Tensor]:
    """Return the parameters that are not frozen, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _mean_values(state: SWAGState) -> dict[str, Tensor]:
    return _in_parameter_dtypes(state.model, state.moments.mean)


def _in_parameter_dtypes(model: Model, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the values to the dtypes of their parameters."""
    parameters = dict(model.named_parameters())
    return {name: value.to(parameters[name].dtype) for name, value in values.items()}


def _copied(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}
