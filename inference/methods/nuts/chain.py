"""One Markov chain of Pyro's NUTS kernel, which can be stopped after any transition and taken up again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bayes_share.inference.algorithm import Batch, Forward
from bayes_share.inference.draws.forward import drawn, evaluating
from bayes_share.inference.draws.thinning import spread
from bayes_share.models.model import Model
from bayes_share.models.program import Program, pyro_model
from bayes_share.tensors.seeding import seeded

_PLATES = 2  # of a `Program`: data and members


@dataclass
class Chain:
    """A chain through the posterior of one model.

    Args:
        model: at the position of the chain; of one member.
        num_data: training examples.
        num_steps: transitions that it will make.
        warmup_steps: transitions in which the step size and the masses are adapted.
        max_tree_depth: at most ``2 ** max_tree_depth - 1`` gradients are taken in a transition.
        target_accept: acceptance probability that the step size is adapted to.
        position: in unbounded space, by the names of the sites; empty before the first transition.
        adaptation: what the kernel has adapted, as tensors and numbers; empty before the first transition.
        kept: what was kept: parameters by their names in the model, scales of hierarchical priors by those of their
            sites.
    """

    model: Model
    num_data: int | float
    num_steps: int
    warmup_steps: int
    max_tree_depth: int
    target_accept: float
    position: dict[str, Tensor] = field(default_factory=dict)
    adaptation: dict[str, Any] = field(default_factory=dict)
    kept: list[dict[str, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._program = pyro_model(self.model)
        self._kernel: Any = None
        self._scales: dict[str, Tensor] = {}

    @property
    def num_parameters(self) -> int:
        """How many numbers the network has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_latents(self) -> int:
        """How many of them are sampled."""
        return sum(latent.site.centre.numel() for latent in self._program.latents)

    @property
    def is_stuck(self) -> bool:
        """Whether several draws were kept, and all of them are the same."""
        first, *others = self.kept or [{}]
        return bool(others) and all(torch.equal(draw[name], first[name]) for draw in others for name in first)

    @property
    def step_size(self) -> float:
        """Of the leapfrog integrator, after at least one transition."""
        return self.adaptation["step_size"]

    def state_dict(self) -> dict[str, Any]:
        """The position, the adaptation, and what was kept."""
        return {
            "model": self.model.state_dict(),
            "position": self.position,
            "adaptation": self.adaptation,
            "kept": self.kept,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.model.load_state_dict(state_dict["model"])
        self._program = Program(self.model, tuple(self.model.latents()))  # around the signs that were read back
        device = next(self.model.parameters()).device
        self.position = {name: value.to(device) for name, value in state_dict["position"].items()}
        self.adaptation = state_dict["adaptation"]
        self.kept = [{name: value.to(device) for name, value in draw.items()} for draw in state_dict["kept"]]
        self._kernel = None

    def transition(self, batch: Batch) -> Tensor:
        """Go on by one transition, given all the data, and give the potential energy where the chain is then.

        The energy is computed anew at the start, so that the transition depends on the position, on what was adapted
        and on torch's generator alone.
        """
        import pyro

        with (
            pyro.validation_enabled(False),
            evaluating(self.model),
            torch.autocast(batch.targets.device.type, enabled=False),
        ):
            potential, transforms = self._potential(batch)
            if self._kernel is None:
                self._kernel = self._set_up(potential)
            self._kernel.potential_fn = potential
            self._kernel.clear_cache()
            self.position = self._kernel.sample(self.position)
            self.adaptation = _read(self._kernel)
            self._move_model(transforms)
        return self._kernel._potential_energy_last

    def keep(self) -> None:
        """Keep the position as a draw."""
        parameters = dict(self.model.named_parameters())
        kept = {latent.parameter: _copy(parameters[latent.parameter]) for latent in self._program.latents}
        self.kept.append(kept | self._scales)

    def draw(self, sample: int) -> Forward:
        """A kept draw, the latest first and then far apart; the position where none was kept yet."""
        kept = spread(self.kept, sample) if self.kept else {}
        parameters = {latent.parameter for latent in self._program.latents}
        values = {name: value for name, value in kept.items() if name in parameters}
        return drawn(self.model, values, {name: value for name, value in kept.items() if name not in parameters})

    def gradient(self, batch: Batch) -> None:
        """Compute the gradient of the potential where the chain begins, to see how long it takes."""
        import pyro
        from pyro.ops.integrator import potential_grad

        with pyro.validation_enabled(False), evaluating(self.model), seeded("gradient"):
            position = dict(self.position)
            potential, _ = self._potential(batch)
            potential_grad(potential, self.position)
            self.position = position

    def _potential(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        """The potential energy in unbounded space, and what takes each site there; sets the position at the start."""
        from pyro.infer.autoguide import init_to_median, init_to_value
        from pyro.infer.mcmc.util import initialize_model

        parameters = dict(self.model.named_parameters())
        values = {latent.site.name: _copy(parameters[latent.parameter]) for latent in self._program.latents}
        _, potential, transforms, trace = initialize_model(
            self._program,
            (batch.inputs, batch.targets, batch.weights),
            max_plate_nesting=_PLATES,
            init_strategy=init_to_value(values=values, fallback=init_to_median),
            initial_params={},  # without any, Pyro takes a gradient in its own way to see whether they are valid
        )
        start = {name: site["value"].detach() for name, site in trace.iter_stochastic_nodes()}
        position = self.position or {name: to_unbounded(start[name]) for name, to_unbounded in transforms.items()}
        self.position = {name: _copy(value) for name, value in position.items()}
        return _with_gradient(potential), transforms

    def _set_up(self, potential: Any) -> Any:
        """A kernel at the position, with what was adapted so far."""
        from pyro.infer.mcmc import NUTS

        kernel = NUTS(potential_fn=potential, target_accept_prob=self.target_accept, max_tree_depth=self.max_tree_depth)
        kernel.initial_params = self.position
        with seeded("kernel"):  # the search for a first step size draws, and is not made again in an uninterrupted run
            kernel.setup(self.warmup_steps)
        if self.adaptation:
            _write(kernel, self.adaptation)
        return kernel

    @torch.no_grad()
    def _move_model(self, transforms: dict[str, Any]) -> None:
        parameters = dict(self.model.named_parameters())
        for latent in self._program.latents:
            name = latent.site.name
            parameters[latent.parameter].copy_(transforms[name].inv(self.position[name]))
        sites = {latent.site.name for latent in self._program.latents}
        others = {name: value for name, value in self.position.items() if name not in sites}
        self._scales = {name: transforms[name].inv(value).clone() for name, value in others.items()}


def _with_gradient(potential: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[dict[str, Tensor]], Tensor]:
    """A potential that takes its gradient at once, by `backward`, and hands it out when Pyro asks for it.

    Pyro asks by `torch.autograd.grad`, which networks with reentrant checkpoints do not allow.
    """

    def energy(position: dict[str, Tensor]) -> Tensor:
        return _Energy.apply(potential, list(position), *position.values())

    return energy


class _Energy(torch.autograd.Function):
    """The energy at a position, with its gradient."""

    @staticmethod
    def forward(ctx: Any, potential: Callable[..., Tensor], names: list[str], *values: Tensor) -> Tensor:
        leaves = [value.detach().requires_grad_() for value in values]
        with torch.enable_grad():
            energy = potential(dict(zip(names, leaves, strict=True)))
            energy.backward()
        ctx.gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        return energy.detach().to(values[0].dtype)  # of a likelihood in units float64, as which Pyro would take all

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * found for found in ctx.gradients)


# Pyro has no way of its own to save a kernel. What follows is all that `pyro.infer.mcmc.{nuts, hmc, adaptation}` and
# `pyro.ops.{dual_averaging, welford}` change from one transition to the next, statistics apart.

_AVERAGING = ("prox_center", "_x_avg", "_g_avg", "_t", "_x_t")
_MOMENTS = ("_mean", "_m2", "n_samples")


def _read(kernel: Any) -> dict[str, Any]:
    """What a kernel has adapted."""
    adapter = kernel._adapter
    (inverse_mass,) = adapter.mass_matrix_adapter.inverse_mass_matrix.values()
    averaging, moments = _schemes(kernel)
    return {
        "transitions": kernel._t,
        "window": adapter._current_window,
        "step_size": float(adapter.step_size),
        "inverse_mass": inverse_mass,
        "averaging": {name: getattr(averaging, name) for name in _AVERAGING if hasattr(averaging, name)},
        "moments": {name: _copied(getattr(moments, name)) for name in _MOMENTS},
    }


def _write(kernel: Any, adaptation: dict[str, Any]) -> None:
    """Have a kernel go on from what `_read` gave."""
    adapter = kernel._adapter
    (sites,) = adapter.mass_matrix_adapter.inverse_mass_matrix
    like = next(iter(kernel.initial_params.values()))
    kernel._t = adaptation["transitions"]
    adapter._current_window = adaptation["window"]
    adapter.step_size = adaptation["step_size"]
    adapter.mass_matrix_adapter.inverse_mass_matrix = {sites: adaptation["inverse_mass"].to(like)}
    averaging, moments = _schemes(kernel)
    for name, value in adaptation["averaging"].items():
        setattr(averaging, name, value)
    for name, value in adaptation["moments"].items():
        setattr(moments, name, value.to(like) if isinstance(value, Tensor) else value)


def _schemes(kernel: Any) -> tuple[Any, Any]:
    """What averages the step size, and the moments that the masses come from."""
    (moments,) = kernel._adapter.mass_matrix_adapter._adapt_scheme.values()
    return kernel._adapter._step_size_adapt_scheme, moments


def _copied(value: Any) -> Any:
    return _copy(value) if isinstance(value, Tensor) else value


def _copy(value: Tensor) -> Tensor:
    return value.detach().clone()
