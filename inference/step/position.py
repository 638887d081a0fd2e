"""The position of a chain that moves by gradients: parameters in unbounded coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform

from bayes_share.errors import InputError
from bayes_share.inference.step.prior_density import check_start, from_unbounded, unchecked
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical
from bayes_share.sharing.kinds import ParameterKind, parameter_kinds


@dataclass
class Position:
    """The trained parameters of a model. Those with a prior of bounded support have unbounded coordinates.

    Args:
        model: the model, whose parameters are the position.
        num_data: number of training examples.
        latents: the sampled parameters. Other trained parameters are point estimates.
        unbounded: the coordinates of parameters whose prior has bounded support, by name.
        kinds: the kinds of the parameters, by name.
    """

    model: Model
    num_data: int | float
    latents: list[Latent]
    unbounded: dict[str, Tensor]
    kinds: dict[str, ParameterKind]

    @classmethod
    def start(cls, model: Model, num_data: int | float, algorithm: str) -> "Position":
        """Return the position at the parameters of a model.

        Args:
            model: the model. Moves of the position change it.
            num_data: number of training examples.
            algorithm: name of the algorithm, for messages.

        Raises:
            InputError: if no parameter has a prior, a prior is hierarchical, or a parameter starts outside the support
                of its prior.
        """
        latents = _latents(model)
        if not latents:
            raise InputError("no parameter of the model has a prior, so there is nothing to sample: use map")
        for latent in latents:
            if isinstance(latent.prior, Hierarchical):
                raise InputError(
                    f"the prior of {latent.site.name} is hierarchical, which {algorithm} does not sample: "
                    f"use svi or nuts"
                )
        check_start(model, latents)
        unbounded = {
            latent.parameter: transform.inv(model.get_parameter(latent.parameter).detach()).clone()
            for latent in latents
            if (transform := from_unbounded(latent)) is not None
        }
        return cls(model, num_data, latents, unbounded, parameter_kinds(model))

    @property
    def trained(self) -> dict[str, Tensor]:
        """The trained parameters, by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    @property
    def sampled(self) -> set[str]:
        """The names of the parameters with a prior."""
        return {latent.parameter for latent in self.latents}

    def gradients(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the log prior, and the gradients of the potential divided by num_data in these coordinates, by name.

        The parameters' ``grad`` must have the gradient of the batch's mean loss. For a parameter with a value per
        member, it is 1 / members of the gradient of the member's own loss.
        """
        parameters = self.trained
        gradients = {}
        for name, parameter in parameters.items():
            of_loss = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients[name] = of_loss * (1 if self.kinds[name] == "base" else len(parameter))
        transforms = self._transforms()
        coordinates, log_prior, moved_loss = {}, [], []
        for latent in self.latents:
            name, transform = latent.parameter, transforms.get(latent.parameter)
            coordinate = (parameters[name] if transform is None else self.unbounded[name]).detach().requires_grad_()
            value = coordinate if transform is None else transform(coordinate)
            log_prob = latent.prior.log_prob(value)  # type: ignore[union-attr]
            if transform is not None:
                log_prob = log_prob + transform.log_abs_det_jacobian(coordinate, value).sum()
                # The gradient of this term is that of the loss in the coordinate.
                moved_loss.append((gradients[name] * value).sum())
                gradients[name] = torch.zeros_like(coordinate)
            coordinates[name] = coordinate
            log_prior.append(log_prob)
        total = torch.stack(log_prior).sum()
        objective = sum(moved_loss, -total / self.num_data)
        for name, gradient in zip(coordinates, torch.autograd.grad(objective, list(coordinates.values())), strict=True):
            gradients[name].add_(gradient)
        return total.detach(), gradients

    @torch.no_grad()
    def move(self, changes: Mapping[str, Tensor]) -> None:
        """Add changes to the coordinates, by parameter name."""
        parameters, transforms = self.trained, self._transforms()
        for name, change in changes.items():
            if name in transforms:
                self.unbounded[name].add_(change)
                parameters[name].copy_(transforms[name](self.unbounded[name]))
            else:
                parameters[name].add_(change)

    def copy(self) -> dict[str, Tensor]:
        """Return copies of the trained parameters and the buffers, by their names in the model."""
        return {name: value.detach().clone() for name, value in (*self.trained.items(), *self.model.named_buffers())}

    def state_dict(self) -> dict[str, Any]:
        """Return the model and the unbounded coordinates."""
        return {"model": self.model.state_dict(), "positions": self.unbounded}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`. Other entries are ignored."""
        self.model.load_state_dict(state_dict["model"])
        self.latents = _latents(self.model)  # priors are centred at the loaded signs
        device = next(self.model.parameters()).device
        self.unbounded = {name: value.to(device).clone() for name, value in state_dict["positions"].items()}

    def _transforms(self) -> dict[str, Transform]:
        """Return the transform from unbounded coordinates to each bounded support, by parameter name."""
        found = {
            name: from_unbounded(latent) for latent in self.latents if (name := latent.parameter) in self.unbounded
        }
        return {name: transform for name, transform in found.items() if transform is not None}


def clip(gradients: Mapping[str, Tensor], largest: float | None) -> None:
    """Scale gradients in place so that their joint norm is at most `largest`. None: no clipping."""
    if largest is None:
        return
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    for gradient in gradients.values():
        gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))


def _latents(model: Model) -> list[Latent]:
    return [replace(latent, prior=unchecked(latent.prior)) for latent in model.latents()]
