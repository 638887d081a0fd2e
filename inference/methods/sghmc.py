"""Stochastic-gradient Hamiltonian Monte Carlo: samples of all parameters, by gradients of batches and noise."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Transform

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Build, Forward, StepInfo
from bayes_share.inference.draws.forward import drawn
from bayes_share.inference.draws.thinning import Thinning, check_thinning, spread
from bayes_share.inference.step.clock import Clock
from bayes_share.inference.step.objective import GradientOptions, check_members_will_differ, check_trainable
from bayes_share.inference.step.prior_density import check_start, from_unbounded, unchecked
from bayes_share.inference.step.schedules import ScheduleName
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical
from bayes_share.sharing.kinds import ParameterKind, parameter_kinds


@dataclass
class SGHMCState:
    """The position and velocity of the chain, and the samples that it left.

    Args:
        model: at the position of the chain.
        latents: what is sampled.
        positions: where a prior has bounded support, the parameter in unbounded space, by name.
        velocity: of each trained parameter, by name.
        kinds: of the parameters, by name.
        num_data: training examples.
        clock: how many of how many steps were taken.
        rates: the learning rate in each step, as a multiple of its highest value.
        gradients: of the potential over num_data, in the coordinates of the chain, by name; between the two halves of a
            step.
        samples: kept parameters and buffers, each by its name in the model.
    """

    model: Model
    latents: list[Latent]
    positions: dict[str, Tensor]
    velocity: dict[str, Tensor]
    kinds: dict[str, ParameterKind]
    num_data: int
    clock: Clock
    rates: Tensor
    gradients: dict[str, Tensor] = field(default_factory=dict)
    samples: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned; shared ones count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_kept(self) -> int:
        """How many samples there are to draw from."""
        return len(self.samples)

    def transforms(self) -> dict[str, Transform]:
        """From unbounded space to the support of each prior that is bounded, by the parameter's name."""
        found = {
            name: from_unbounded(latent) for latent in self.latents if (name := latent.parameter) in self.positions
        }
        return {name: transform for name, transform in found.items() if transform is not None}

    def state_dict(self) -> dict[str, Any]:
        """The chain and its samples."""
        return {
            "model": self.model.state_dict(),
            "positions": self.positions,
            "velocity": self.velocity,
            "step": self.clock.steps,
            "samples": self.samples,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state_dict["model"])
        self.latents = _latents(self.model)  # around the signs that were read back
        device = next(self.model.parameters()).device
        self.positions = {name: value.to(device).clone() for name, value in state_dict["positions"].items()}
        self.velocity = {name: value.to(device).clone() for name, value in state_dict["velocity"].items()}
        self.clock.set(state_dict["step"])
        self.samples = [{name: value.to(device) for name, value in sample.items()} for sample in state_dict["samples"]]


@dataclass(frozen=True)
class SGHMC(GradientOptions):
    """Stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin 2014, arXiv 1402.4102).

    Draws all parameters that have a prior from their posterior. With the potential ``U = -log p(y, θ)``, the step size
    ``η = learning_rate / num_data`` and the friction α, a step is (their eq. 15, with no correction for the noise of
    batches)

        v ← (1 - α) v - η ∇U + √(2 α η temperature) · N(0, 1),        θ ← θ + v.

    So it is SGD with the same learning rate and momentum 1 - α on the loss per example, and noise. The gradient of a
    batch stands for that of all data. For a quadratic U of curvature h and no noise of batches, the chain has the
    variance ``(temperature / h) / (1 - η h / (2 (2 - α)))``: too large, by little where the step is small.

    What members share is drawn from the posterior of the members' mean log-likelihood; a member's own parameters from
    that of the member's own log-likelihood, given what is shared. Parameters of bounded support move in unbounded
    space. Trained parameters without a prior are points, and learned by the same steps without noise and prior.

    Args:
        learning_rate: of SGD with momentum ``1 - friction`` on the mean loss; num_data times the step size η.
        factor_rate: learning rate of the rank-1 factors r and s, as a multiple of `learning_rate`.
        schedule: of the learning rate: "constant", "cosine" or "step"; a chain whose steps vanish stands still.
        friction: part of the velocity that is lost in each step, above 0 and up to 1 (Langevin dynamics).
        temperature: of the posterior that is drawn from, ``p(θ | y) ^ (1 / temperature)``; 0: no noise.
        burn_in: part of all steps before the first sample that is kept.
        keep: samples that are kept, evenly spaced over the steps after `burn_in`, each a copy of the network.
    """

    run_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({"num_samples": 16, "epochs": 100})

    learning_rate: float = 0.1
    schedule: ScheduleName = "constant"
    friction: float = 0.1
    temperature: float = 1.0
    burn_in: float = 0.5
    keep: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.friction <= 1:
            raise InputError(f"the friction must be above 0 and at most 1, and is {self.friction}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"the temperature must not be negative, and is {self.temperature}")
        check_thinning("burn_in", self.burn_in, self.keep)

    def init(self, build: Build, num_data: int, num_steps: int) -> SGHMCState:
        """A fresh model in training mode, at rest.

        Raises:
            InputError: no parameter with a prior, a hierarchical prior, a start outside a prior's support, or members
                that are equal and would stay so.
        """
        model = build().train()
        check_trainable(model)
        if self.temperature == 0:
            check_members_will_differ(model, self.feed)
        latents = _latents(model)
        if not latents:
            raise InputError("no parameter of the model has a prior: there is nothing to sample, use map")
        for latent in latents:
            if isinstance(latent.prior, Hierarchical):
                raise InputError(
                    f"the prior of {latent.site.name} is hierarchical, which sghmc does not sample: use svi or nuts"
                )
        check_start(model, latents)
        transforms = {latent.parameter: from_unbounded(latent) for latent in latents}
        positions = {
            latent.parameter: transform.inv(model.get_parameter(latent.parameter).detach()).clone()
            for latent in latents
            if (transform := transforms[latent.parameter]) is not None
        }
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        velocity = {name: torch.zeros_like(value) for name, value in trained.items()}
        clock = Clock.start(num_steps, next(iter(trained.values())).device)
        kinds, rates = parameter_kinds(model), clock.table(self.rate_at)
        return SGHMCState(model, latents, positions, velocity, kinds, num_data, clock, rates)

    def step(self, state: SGHMCState, batch: Batch) -> StepInfo:
        """One step of the chain, with the gradient of a batch."""
        info = self.gradient(state, batch)
        self.update(state)
        return info

    def gradient(self, state: SGHMCState, batch: Batch) -> StepInfo:
        """The gradient of the potential, the prior's part with it."""
        model = state.model
        model.zero_grad()
        log_lik, accuracy = self.accumulate_gradient(model, batch)
        log_prior, state.gradients = _gradients(state)
        loss = -log_lik - log_prior / state.num_data
        rate = self.learning_rate * state.clock.read(state.rates)
        return StepInfo(loss, log_lik, torch.zeros_like(log_lik), accuracy, rate)

    def update(self, state: SGHMCState) -> None:
        """Move the chain, with noise."""
        if self.clip_norm is not None:
            norm = torch.stack([gradient.norm() for gradient in state.gradients.values()]).norm()
            for gradient in state.gradients.values():
                gradient.mul_((self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        self._move(state, self.learning_rate * state.clock.read(state.rates))
        state.gradients = {}
        state.clock.advance()

    def after_step(self, state: SGHMCState, steps: int) -> None:
        """Keep a sample, where it is time for one."""
        if Thinning(state.clock.num_steps, self.burn_in, self.keep).keeps(steps - 1):
            state.samples.append(_copy(state))

    def finish(self, state: SGHMCState, batches: Iterable[Batch]) -> None:
        """Nothing is left to do."""

    def draw(self, state: SGHMCState, sample: int) -> Forward:
        """A sample that was kept, the latest first; the chain's position where none was kept yet."""
        return drawn(state.model, spread(state.samples, sample) if state.samples else {})

    @torch.no_grad()
    def _move(self, state: SGHMCState, learning_rate: Tensor) -> None:
        parameters = dict(state.model.named_parameters())
        transforms = state.transforms()
        sampled = {latent.parameter for latent in state.latents}
        rates = {"base": learning_rate, "member": learning_rate, "factor": learning_rate * self.factor_rate}
        noise = 2 * self.friction * self.temperature / state.num_data
        scales = {kind: (rate * noise).sqrt() for kind, rate in rates.items()}
        for name, gradient in state.gradients.items():
            velocity, kind = state.velocity[name], state.kinds[name]
            velocity.mul_(1 - self.friction).sub_(gradient * rates[kind])
            if name in sampled and self.temperature > 0:
                velocity.add_(torch.randn_like(velocity) * scales[kind])
            if name in transforms:
                state.positions[name].add_(velocity)
                parameters[name].copy_(transforms[name](state.positions[name]))
            else:
                parameters[name].add_(velocity)


def _latents(model: Model) -> list[Latent]:
    return [replace(latent, prior=unchecked(latent.prior)) for latent in model.latents()]


def _gradients(state: SGHMCState) -> tuple[Tensor, dict[str, Tensor]]:
    """The log prior, and the gradient of the potential over num_data in the coordinates of the chain, by name.

    The gradient of the batch's mean loss is in the parameters' ``grad``; a member's own has a part 1 / members of the
    gradient of that member's loss.
    """
    parameters = dict(state.model.named_parameters())
    gradients = {}
    for name in state.velocity:
        parameter = parameters[name]
        of_loss = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        gradients[name] = of_loss * (1 if state.kinds[name] == "base" else len(parameter))
    transforms = state.transforms()
    coordinates, log_prior, moved_loss = {}, [], []
    for latent in state.latents:
        name, transform = latent.parameter, transforms.get(latent.parameter)
        coordinate = (parameters[name] if transform is None else state.positions[name]).detach().requires_grad_()
        value = coordinate if transform is None else transform(coordinate)
        log_prob = latent.prior.log_prob(value)  # type: ignore[union-attr]
        if transform is not None:
            log_prob = log_prob + transform.log_abs_det_jacobian(coordinate, value).sum()
            # Its gradient is that of the loss, carried over to the coordinate.
            moved_loss.append((gradients[name] * value).sum())
            gradients[name] = torch.zeros_like(coordinate)
        coordinates[name] = coordinate
        log_prior.append(log_prob)
    total = torch.stack(log_prior).sum()
    objective = sum(moved_loss, -total / state.num_data)
    for name, gradient in zip(coordinates, torch.autograd.grad(objective, list(coordinates.values())), strict=True):
        gradients[name].add_(gradient)
    return total.detach(), gradients


def _copy(state: SGHMCState) -> dict[str, Tensor]:
    """The trained parameters and the buffers as they are now, by their names in the model."""
    trained = {name: value for name, value in state.model.named_parameters() if name in state.velocity}
    return {name: value.detach().clone() for name, value in (*trained.items(), *state.model.named_buffers())}
