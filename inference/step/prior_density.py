"""Priors in the unbounded coordinates of a Markov chain."""

from copy import copy
from typing import Any

from torch.distributions import Distribution, Independent, Transform, biject_to, constraints

from bayes_share.errors import InputError
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical
from bayes_share.priors.supports import of_one_number


def from_unbounded(latent: Latent) -> Transform | None:
    """Return the transform from unbounded coordinates to the support of a prior; None if that is unbounded."""
    prior: Any = latent.prior
    if isinstance(prior, Hierarchical):
        return None
    return None if of_one_number(prior.support) is constraints.real else biject_to(prior.support)


def _to_mixture(constraint: Any) -> Transform:
    """Return the transform for a mixture, which torch lacks: that of its components."""
    return biject_to(constraint.base_constraint)


if hasattr(constraints, "MixtureSameFamilyConstraint"):  # older versions of torch use the components' support
    biject_to.register(constraints.MixtureSameFamilyConstraint, _to_mixture)


def of_each_number(prior: Distribution) -> Any:
    """Return the prior of a parameter as a distribution of its elements, with the parameter's shape as batch shape."""
    while isinstance(prior, Independent):
        prior = prior.base_dist
    return prior


def unchecked(prior: Any) -> Any:
    """Return a copy of a distribution that does not validate values.

    Validation would make the host wait in every step. Values outside the support give NaN, which is reported with the
    loss. Hierarchical priors are returned unchanged.
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
    """Raise InputError if a parameter starts outside the support of its prior.

    This can only happen for priors with bounded support, such as a log-normal.
    """
    for latent in latents:
        prior: Any = latent.prior
        if from_unbounded(latent) is not None and not bool(
            prior.support.check(model.get_parameter(latent.parameter)).all()
        ):
            raise InputError(
                f"the initial value of {latent.site.name} is outside the support of its prior: change the "
                f"initialisation, or use a prior over all real numbers"
            )
