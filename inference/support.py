"""Latent parameters as a Markov chain moves them: priors that stay what they were, and unbounded coordinates."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints

from bayes_share.errors import InputError
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical


def restored_latents(model: Model, initial: Mapping[str, Tensor]) -> list[Latent]:
    """The latents of a model whose parameters began with other values, from which priors may take their centres.

    Args:
        model: its parameters are overwritten.
        initial: the values that its latent parameters began with, by their names in the model.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in initial.items():
            parameters[name].copy_(value)
    return model.latents()


def initial_values(latents: list[Latent]) -> dict[str, Tensor]:
    """What `restored_latents` needs."""
    return {latent.parameter: latent.site.initial for latent in latents}


def from_unbounded(latent: Latent) -> Transform | None:
    """What takes unbounded numbers to the support of a parameter's prior; None where it is unbounded itself."""
    prior: Any = latent.prior
    if isinstance(prior, Hierarchical):
        return None
    inner = prior.support
    while isinstance(inner, constraints.independent):
        inner = inner.base_constraint
    return None if inner is constraints.real else biject_to(prior.support)


def check_start(latents: list[Latent]) -> None:
    """Raise an InputError where a parameter begins outside the support of its prior.

    Only a prior over bounded numbers, such as a log-normal, can be one that excludes a parameter's start.
    """
    for latent in latents:
        prior: Any = latent.prior
        if from_unbounded(latent) is not None and not bool(prior.support.check(latent.site.initial).all()):
            raise InputError(
                f"{latent.site.name} begins outside the support of its prior: begin inside it, "
                f"or give a prior over all numbers"
            )
