"""Counts."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.distributions import Poisson as PoissonDistribution
from bayes_share.models.likelihoods.base import Likelihood
from bayes_share.models.likelihoods.outputs import beside, each, one_to_one, precise, squeezed
from bayes_share.models.targets import whole


class Poisson(Likelihood):
    """Counts, with the exponential of an output as their mean; of several outputs, several such counts.

    >>> Poisson().log_lik(torch.zeros(1, 2, 1), torch.tensor([[0, 2]]))
    tensor([[-1.0000, -1.6931]])
    """

    name = "poisson"

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """``rate``, which no finite output makes 0 or so large that its square is infinite."""
        log_rate = squeezed(precise(outputs))
        kind = torch.finfo(log_rate.dtype)
        return {"rate": log_rate.exp().clamp(kind.tiny, kind.max**0.5)}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Poisson."""
        return PoissonDistribution(arguments["rate"])

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """The log probability, summed over the counts; targets are ``[member, batch]`` where an example has one."""
        log_rate = squeezed(precise(outputs))
        counts = beside(log_rate, outputs, targets).to(log_rate.dtype)
        return each(counts * log_rate - log_rate.exp() - (counts + 1).lgamma()).sum(2)

    @torch.no_grad()
    def steepness(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, ""]:
        """The second derivative is the rate, and at the end of the way the count."""
        rate = self.arguments(outputs)["rate"]
        return 4 * torch.maximum(rate, beside(rate, outputs, targets).to(rate.dtype)).mean()

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Whole numbers from 0 on, as int64."""
        counts = whole(one_to_one(targets, outputs))
        if bool((negative := counts < 0).any()):
            raise InputError(f"the targets must be counts, from 0 on, and one is {int(counts[negative][0])}")
        return counts

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Of the Poisson distributions, summed over the counts; whatever the temperature."""
        ours, theirs = precise(outputs), precise(teacher_outputs)
        return each(theirs.exp() * (theirs - ours) - theirs.exp() + ours.exp()).sum(2)
