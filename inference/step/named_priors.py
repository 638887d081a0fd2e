"""The priors that a user named, for algorithms whose other parameters have a penalty instead."""

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
    """Parameters that are joined in one vector, or one alone, and their prior over each of the numbers.

    Args:
        parameters: are read at each call.
        prior: its batch shape is that of the parameter, or has one axis, of as many numbers as they have.
        members: how many have a part of each parameter.
    """

    parameters: list[nn.Parameter]
    prior: "Distribution"
    members: int

    def log_density(self) -> Tensor:
        values = torch.cat([_precise(parameter).flatten() for parameter in self.parameters])
        return self.prior.log_prob(values.view(self.prior.batch_shape)).sum() / self.members


class NamedPriors:
    """The log density of the priors that a model's user named, at the values of its parameters.

    What members share counts once, and a member's own part is averaged over the members, as everywhere. Priors of one
    family, where it is normal, Laplace or Cauchy, are evaluated as one vector.

    Args:
        model: its parameters are read, and their gradients added to, as they are at each call.

    Raises:
        InputError: a prior under which there is no mode (hierarchical), or that is not over all real numbers.
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
        """Whether a rule of the user's chooses a parameter, be its prior flat or not."""
        return parameter in self._parameters

    def ascend(self, scale: float) -> Float[Tensor, ""]:
        """Add the gradient of ``-scale`` times the log density to the parameters' gradients.

        Returns:
            The log density; 0 where there is no prior.
        """
        if not self._terms:
            return torch.zeros(())
        terms = [term.log_density() for term in self._terms]
        total = torch.stack([term.to(terms[0]) for term in terms]).sum()
        (-scale * total).backward()
        return total.detach()


def normal_prior(latent: Latent, algorithm: str) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of a normal prior, each of the shape of its parameter.

    Raises:
        InputError: another prior.
    """
    prior: Any = latent.prior if isinstance(latent.prior, Hierarchical) else of_each_number(latent.prior)
    from pyro.distributions import Normal

    if type(prior) is not Normal:
        what = "hierarchical" if isinstance(prior, Hierarchical) else f"a {type(prior).__name__}"
        raise InputError(f"{algorithm} takes normal priors, and that of {latent.site.name} is {what}: give it a Normal")
    return prior.loc, prior.scale


def _checked(latent: Latent) -> "Distribution":
    """The prior of each number of a parameter.

    Raises:
        InputError: one under which a point estimate is not possible.
    """
    prior: Any = latent.prior
    name = latent.site.name
    if isinstance(prior, Hierarchical):
        raise InputError(
            f"the prior of {name} is hierarchical: its density is unbounded where the scale goes to 0, so there is no "
            f"mode to find; give the scale a value, or use svi or nuts"
        )
    if prior.support.is_discrete or from_unbounded(latent) is not None:
        raise InputError(
            f"the prior of {name} is not over all real numbers, through which a point estimate moves: give it one that "
            f"is, such as Normal, Laplace or Cauchy, or use svi, sghmc or nuts"
        )
    return cast("Distribution", unchecked(of_each_number(prior)))


def _is_joinable(prior: "Distribution") -> bool:
    from pyro import distributions

    return type(prior) in (distributions.Normal, distributions.Laplace, distributions.Cauchy)


def _joined(priors: "list[Distribution]") -> "Distribution":
    """One prior over the numbers of several of a family, in their order and at least in float32."""
    if not _is_joinable(priors[0]):
        (prior,) = priors
        return prior
    loc, scale = (
        torch.cat([_precise(getattr(prior, name)).flatten() for prior in priors]) for name in ("loc", "scale")
    )
    # What is no number is reported with the loss, by name and step.
    family: Any = type(priors[0])
    return cast("Distribution", family(loc, scale, validate_args=False))


def _precise(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
