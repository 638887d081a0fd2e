"""Latent parameters as a Markov chain moves them: in unbounded coordinates."""

from copy import copy
from typing import Any

from torch.distributions import Distribution, Independent, Transform, biject_to, constraints

from bayes_share.errors import InputError
from bayes_share.inference.methods.svi.guides import of_one_number
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical


def from_unbounded(latent: Latent) -> Transform | None:
    """What takes unbounded numbers to the support of a parameter's prior; None where it is unbounded itself."""
    prior: Any = latent.prior
    if isinstance(prior, Hierarchical):
        return None
    return None if of_one_number(prior.support) is constraints.real else biject_to(prior.support)


def _to_mixture(constraint: Any) -> Transform:
    """Torch has none: what a mixture allows is what its components allow."""
    return biject_to(constraint.base_constraint)


if hasattr(constraints, "MixtureSameFamilyConstraint"):  # before, a mixture had the support of its components
    biject_to.register(constraints.MixtureSameFamilyConstraint, _to_mixture)


def of_each_number(prior: Distribution) -> Any:
    """A prior over a whole parameter as one over each number of it, with the parameter's shape as its batch shape."""
    while isinstance(prior, Independent):
        prior = prior.base_dist
    return prior


def unchecked(prior: Any) -> Any:
    """A copy of a distribution that does not look at the values it is asked about.

    To look at them would have the host wait in every step; what is outside the support gives NaN, which is reported
    with the loss. Hierarchical priors are left as they are.
    """
    if not isinstance(prior, Distribution):
        return prior
    found = copy(prior)
    found._validate_args = False
    for name, part in vars(prior).items():
        if isinstance(part, Distribution):
            setattr(found, name, unchecked(part))
    return found


def check_start(model: Model, latents: list[Latent]) -> None:
    """Raise an InputError where a parameter begins outside the support of its prior.

    Only a prior over bounded numbers, such as a log-normal, can be one that excludes a parameter's start.
    """
    for latent in latents:
        prior: Any = latent.prior
        if from_unbounded(latent) is not None and not bool(
            prior.support.check(model.get_parameter(latent.parameter)).all()
        ):
            raise InputError(
                f"{latent.site.name} begins outside the support of its prior: begin inside it, "
                f"or give a prior over all numbers"
            )
