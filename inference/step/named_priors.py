"""The priors that a user named, for algorithms that use penalties on all other parameters."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference.step.prior_density import from_unbounded, of_each_number, unchecked
from bayes_share.models.model import Latent, Model
from bayes_share.priors import Hierarchical

if TYPE_CHECKING:
    from pyro.distributions.torch_distribution import TorchDistribution as Distribution


@dataclass(frozen=True, eq=False)
class _Term:
    """One parameter, or several joined into a vector, with their prior.

    Args:
        parameters: the parameters; their values are read at each call.
        prior: a prior with the batch shape of the parameter, or of the vector.
        members: number of members that have a part of each parameter.
    """

    parameters: list[nn.Parameter]
    prior: "Distribution"
    members: int

    def log_density(self) -> Tensor:
        values = torch.cat([_at_least_float32(parameter).flatten() for parameter in self.parameters])
        return self.prior.log_prob(values.view(self.prior.batch_shape)).sum() / self.members


class NamedPriors:
    """The log density of a user's named priors at the current values of a model's parameters.

    Shared parameters count once; parameters with a value per member are averaged over the members, as in the loss.
    Normal, Laplace and Cauchy priors are each evaluated on one vector per family.

    Args:
        model: the model. Its parameters are read, and gradients are added to theirs, at each call.

    Raises:
        InputError: if a prior has no mode (a hierarchical prior) or its support is not all real numbers.
    """

    def __init__(self, model: Model) -> None:
        named = model.named_in_priors()
        self._parameters = {model.get_parameter(name) for name in named}
        groups: dict[Hashable, list[tuple[nn.Parameter, Distribution, int]]] = {}
        for name, latent in named.items():
            if latent is not None:
                prior, parameter, members = _checked(latent), model.get_parameter(name), latent.site.members
                alike = (type(prior), members, parameter.dtype, parameter.device)
                groups.setdefault(alike if _is_joinable(prior) else name, []).append((parameter, prior, members))
        self._terms = [
            _Term([parameter for parameter, _, _ in found], _joined([prior for _, prior, _ in found]), found[0][2])
            for found in groups.values()
        ]

    def __contains__(self, parameter: Tensor) -> bool:
        """Return whether the user named a prior for a parameter, which may be a flat one."""
        return parameter in self._parameters

    def ascend(self, scale: float) -> Float[Tensor, ""]:
        """Add the gradient of ``-scale`` times the log density to the parameters' gradients.

        Returns:
            The log density; 0 if there is no prior.
        """
        if not self._terms:
            return torch.zeros(())
        terms = [term.log_density() for term in self._terms]
        total = torch.stack([term.to(terms[0]) for term in terms]).sum()
        (-scale * total).backward()
        return total.detach()


def normal_prior(latent: Latent, algorithm: str) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of a normal prior, each with the shape of its parameter.

    Raises:
        InputError: if the prior is not normal.
    """
    prior: Any = latent.prior if isinstance(latent.prior, Hierarchical) else of_each_number(latent.prior)
    from pyro.distributions import Normal

    if type(prior) is not Normal:
        what = "hierarchical" if isinstance(prior, Hierarchical) else f"a {type(prior).__name__}"
        raise InputError(
            f"{algorithm} requires normal priors, and the prior of {latent.site.name} is {what}: use a Normal"
        )
    return prior.loc, prior.scale


def _checked(latent: Latent) -> "Distribution":
    """Return the prior of each element of a parameter.

    Raises:
        InputError: if the prior does not permit a point estimate.
    """
    prior: Any = latent.prior
    name = latent.site.name
    if isinstance(prior, Hierarchical):
        raise InputError(
            f"the prior of {name} is hierarchical: its density is unbounded as the scale goes to 0, so it has no mode; "
            f"give the scale a value, or use svi or nuts"
        )
    if prior.support.is_discrete or from_unbounded(latent) is not None:
        raise InputError(
            f"the support of the prior of {name} must be all real numbers for a point estimate: use a prior such as "
            f"Normal, Laplace or Cauchy, or use svi, sghmc or nuts"
        )
    return cast("Distribution", unchecked(of_each_number(prior)))


def _is_joinable(prior: "Distribution") -> bool:
    from pyro import distributions

    return type(prior) in (distributions.Normal, distributions.Laplace, distributions.Cauchy)


def _joined(priors: "list[Distribution]") -> "Distribution":
    """Join priors of one family into one prior over a vector, in at least float32."""
    if not _is_joinable(priors[0]):
        (prior,) = priors
        return prior
    loc, scale = (
        torch.cat([_at_least_float32(getattr(prior, name)).flatten() for prior in priors]) for name in ("loc", "scale")
    )
    # NaN is reported with the loss, with the step.
    family: Any = type(priors[0])
    return cast("Distribution", family(loc, scale, validate_args=False))


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
