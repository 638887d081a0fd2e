"""One Markov chain of Pyro's NUTS kernel, which can be saved after any transition and resumed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.inference.algorithm import Batch, Forward
from bayes_share.inference.draws.forward import drawn, evaluating
from bayes_share.inference.draws.thinning import spread
from bayes_share.models.model import Model
from bayes_share.models.program import Program, pyro_model
from bayes_share.tensors.seeding import seeded

_NUM_PLATES = 2  # plates of a `Program`: data and members
_ROUNDING = 1000  # rounding errors of an energy, relative to the machine epsilon: examples may change their order


@dataclass
class Chain:
    """A Markov chain that samples the posterior of one model.

    Args:
        model: the model, with a single member, at the position of the chain.
        num_data: number of training examples.
        num_steps: total number of transitions.
        warmup_steps: number of transitions in which the step size and the mass matrix are adapted.
        max_tree_depth: maximum tree depth; a transition takes at most ``2 ** max_tree_depth - 1`` gradients.
        target_accept: acceptance probability to which the step size is adapted.
        position: position in unbounded space, by the names of the sites; empty before the first transition.
        adaptation: adapted state of the kernel, as tensors and numbers; empty before the first transition.
        kept: draws kept so far: parameters by their names in the model, and scales of hierarchical priors by the names
            of their sites.
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
        """The number of parameters of the network."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def num_latents(self) -> int:
        """The number of sampled parameter values, without the scales of hierarchical priors."""
        return sum(latent.site.centre.numel() for latent in self._program.latents)

    @property
    def is_stuck(self) -> bool:
        """Whether several draws were kept and all of them are equal."""
        first, *others = self.kept or [{}]
        return bool(others) and all(torch.equal(draw[name], first[name]) for draw in others for name in first)

    @property
    def step_size(self) -> float:
        """The step size of the leapfrog integrator, available after the first transition."""
        return self.adaptation["step_size"]

    def state_dict(self) -> dict[str, Any]:
        """Return the model, the position, the adapted state and the kept draws."""
        return {
            "model": self.model.state_dict(),
            "position": self.position,
            "adaptation": self.adaptation,
            "kept": self.kept,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`."""
        self.model.load_state_dict(state_dict["model"])
        self._program = Program(self.model, tuple(self.model.latents()))  # with priors centred at the loaded signs
        device = next(self.model.parameters()).device
        self.position = {name: value.to(device) for name, value in state_dict["position"].items()}
        self.adaptation = state_dict["adaptation"]
        self.kept = [{name: value.to(device) for name, value in draw.items()} for draw in state_dict["kept"]]
        self._kernel = None

    def transition(self, batch: Batch) -> Tensor:
        """Take one transition on all the data, and return the potential energy at the new position.

        The energy at the current position is recomputed first, so the transition depends only on the position, the
        adapted state and torch's generator.

        Raises:
            InputError: if this energy is not that of the last transition, because the examples or the outputs of the
                network have changed.
        """
        import pyro
        from pyro.ops.integrator import potential_grad

        with (
            pyro.validation_enabled(False),
            evaluating(self.model),
            torch.autocast(batch.targets.device.type, enabled=False),
        ):
            potential, transforms = self._potential(batch)
            if self._kernel is None:
                self._kernel = self._make_kernel(potential)
            self._kernel.potential_fn = potential
            gradients, energy = potential_grad(potential, self.position)
            self._check_energy(energy)
            self._kernel._cache(self.position, energy, gradients)
            self.position = self._kernel.sample(self.position)
            self.adaptation = _read_adaptation(self._kernel)
            self._move_model(transforms)
        return self._kernel._potential_energy_last

    def keep(self) -> None:
        """Keep the position as a draw."""
        parameters = dict(self.model.named_parameters())
        kept = {latent.parameter: _copy(parameters[latent.parameter]) for latent in self._program.latents}
        self.kept.append(kept | self._scales)

    def draw(self, sample: int) -> Forward:
        """Return a kept draw, the latest first and then far apart, or the current position if there is none yet."""
        kept = spread(self.kept, sample) if self.kept else {}
        parameters = {latent.parameter for latent in self._program.latents}
        values = {name: value for name, value in kept.items() if name in parameters}
        return drawn(self.model, values, {name: value for name, value in kept.items() if name not in parameters})

    def gradient(self, batch: Batch) -> None:
        """Compute the gradient of the potential at the current position, to measure how long it takes."""
        import pyro
        from pyro.ops.integrator import potential_grad

        with pyro.validation_enabled(False), evaluating(self.model), seeded("gradient"):
            position = dict(self.position)
            potential, _ = self._potential(batch)
            potential_grad(potential, self.position)
            self.position = position

    def _potential(self, batch: Batch) -> tuple[Any, dict[str, Any]]:
        """Return the potential energy in unbounded space, and the transforms to it.

        Sets the position before the first transition.
        """
        from pyro.infer.autoguide import init_to_median, init_to_value
        from pyro.infer.mcmc.util import initialize_model

        parameters = dict(self.model.named_parameters())
        values = {latent.site.name: _copy(parameters[latent.parameter]) for latent in self._program.latents}
        _, potential, transforms, trace = initialize_model(
            self._program,
            (batch.inputs, batch.targets, batch.weights),
            max_plate_nesting=_NUM_PLATES,
            init_strategy=init_to_value(values=values, fallback=init_to_median),
            initial_params={},  # otherwise Pyro validates the initial values with `torch.autograd.grad`
        )
        start = {name: site["value"].detach() for name, site in trace.iter_stochastic_nodes()}
        position = self.position or {name: to_unbounded(start[name]) for name, to_unbounded in transforms.items()}
        self.position = {name: _copy(value) for name, value in position.items()}
        return _with_backward_gradient(potential), transforms

    def _make_kernel(self, potential: Any) -> Any:
        """Return a kernel at the current position with the adapted state."""
        from pyro.infer.mcmc import NUTS

        kernel = NUTS(potential_fn=potential, target_accept_prob=self.target_accept, max_tree_depth=self.max_tree_depth)
        kernel.initial_params = self.position
        # Setup draws random numbers to find a step size. A resumed run repeats this, so the generator of the chain must
        # not advance.
        with seeded("kernel"):
            kernel.setup(self.warmup_steps)
        if self.adaptation:
            _write_adaptation(kernel, self.adaptation)
        return kernel

    def _check_energy(self, energy: Tensor) -> None:
        last = self._kernel._potential_energy_last  # None before the first transition of this process
        if last is None:
            return
        tolerance = _ROUNDING * torch.finfo(energy.dtype).eps * (energy.abs() + self.num_data)
        if (energy - last).abs() > tolerance:
            raise InputError(
                f"nuts requires the same examples in every step, but the energy of its position changed from "
                f"{last.item():g} to {energy.item():g}: use data without augmentation and a network without random "
                "numbers of its own"
            )

    @torch.no_grad()
    def _move_model(self, transforms: dict[str, Any]) -> None:
        parameters = dict(self.model.named_parameters())
        for latent in self._program.latents:
            name = latent.site.name
            parameters[latent.parameter].copy_(transforms[name].inv(self.position[name]))
        sites = {latent.site.name for latent in self._program.latents}
        others = {name: value for name, value in self.position.items() if name not in sites}
        self._scales = {name: transforms[name].inv(value).clone() for name, value in others.items()}


def _with_backward_gradient(potential: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[dict[str, Tensor]], Tensor]:
    """Wrap a potential so that its gradient is computed by `backward` and returned when Pyro requests it.

    Pyro requests it by `torch.autograd.grad`, which networks with reentrant checkpoints do not support.
    """

    def energy(position: dict[str, Tensor]) -> Tensor:
        return _Energy.apply(potential, list(position), *position.values())

    return energy


class _Energy(torch.autograd.Function):
    """The energy at a position, together with its gradient."""

    @staticmethod
    def forward(ctx: Any, potential: Callable[..., Tensor], names: list[str], *values: Tensor) -> Tensor:
        leaves = [value.detach().requires_grad_() for value in values]
        with torch.enable_grad():
            energy = potential(dict(zip(names, leaves, strict=True)))
            energy.backward()
        ctx.gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        # The energy is float64 if the likelihood has units, and Pyro would convert everything to it.
        return energy.detach().to(values[0].dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * found for found in ctx.gradients)


# Pyro cannot save a kernel. The following functions read and write everything that `pyro.infer.mcmc.{nuts, hmc,
# adaptation}` and `pyro.ops.{dual_averaging, welford}` change between transitions, except for statistics.

_AVERAGING_FIELDS = ("prox_center", "_x_avg", "_g_avg", "_t", "_x_t")
_MOMENT_FIELDS = ("_mean", "_m2", "n_samples")


def _read_adaptation(kernel: Any) -> dict[str, Any]:
    """Return the adapted state of a kernel."""
    adapter = kernel._adapter
    (inverse_mass,) = adapter.mass_matrix_adapter.inverse_mass_matrix.values()
    averaging, moments = _adaptation_schemes(kernel)
    return {
        "transitions": kernel._t,
        "window": adapter._current_window,
        "step_size": float(adapter.step_size),
        "inverse_mass": inverse_mass,
        "averaging": {name: getattr(averaging, name) for name in _AVERAGING_FIELDS if hasattr(averaging, name)},
        "moments": {name: _copied(getattr(moments, name)) for name in _MOMENT_FIELDS},
    }


def _write_adaptation(kernel: Any, adaptation: dict[str, Any]) -> None:
    """Set the adapted state of a kernel to a result of `_read_adaptation`."""
    adapter = kernel._adapter
    (sites,) = adapter.mass_matrix_adapter.inverse_mass_matrix
    like = next(iter(kernel.initial_params.values()))
    kernel._t = adaptation["transitions"]
    adapter._current_window = adaptation["window"]
    adapter.step_size = adaptation["step_size"]
    adapter.mass_matrix_adapter.inverse_mass_matrix = {sites: adaptation["inverse_mass"].to(like)}
    averaging, moments = _adaptation_schemes(kernel)
    for name, value in adaptation["averaging"].items():
        setattr(averaging, name, value)
    for name, value in adaptation["moments"].items():
        setattr(moments, name, value.to(like) if isinstance(value, Tensor) else value)


def _adaptation_schemes(kernel: Any) -> tuple[Any, Any]:
    """Return the averaging scheme of the step size and the moments that determine the mass matrix."""
    (moments,) = kernel._adapter.mass_matrix_adapter._adapt_scheme.values()
    return kernel._adapter._step_size_adapt_scheme, moments


def _copied(value: Any) -> Any:
    return _copy(value) if isinstance(value, Tensor) else value


def _copy(value: Tensor) -> Tensor:
    return value.detach().clone()
