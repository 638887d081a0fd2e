"""The Poisson likelihood for counts."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.distributions import Poisson as PoissonDistribution
from bayes_share.models.likelihoods.base import Likelihood
from bayes_share.models.likelihoods.outputs import flatten_targets, one_to_one, precise, squeezed, targets_like
from bayes_share.models.targets import whole


class Poisson(Likelihood):
    """Counts, one per output, whose mean is the exponential of the output.

    >>> Poisson().log_lik(torch.zeros(1, 2, 1), torch.tensor([[0, 2]]))
    tensor([[-1.0000, -1.6931]])
    """

    name = "poisson"

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """Return ``rate``, clamped so that it is not 0 and its square does not overflow."""
        log_rate = squeezed(precise(outputs))
        info = torch.finfo(log_rate.dtype)
        return {"rate": log_rate.exp().clamp(info.tiny, info.max**0.5)}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Return the Poisson distribution."""
        return PoissonDistribution(arguments["rate"])

    def log_lik(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, "member batch"]:
        """Compute the log probability, summed over counts; targets may be ``[member, batch]`` if there is one count."""
        values = squeezed(precise(outputs))
        # In float64: the terms are about as large as the counts, and cancel.
        log_rate, counts = values.double(), targets_like(values, outputs, targets).double()
        log_probs = counts * log_rate - log_rate.exp() - (counts + 1).lgamma()
        return flatten_targets(log_probs).sum(2).to(values.dtype)

    @torch.no_grad()
    def steepness(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> Float[Tensor, ""]:
        """Compute the curvature from the larger of rate and count: the second derivative is the rate.

        In training the rate approaches the count.
        """
        rate = self.arguments(outputs)["rate"]
        return 4 * torch.maximum(rate, targets_like(rate, outputs, targets).to(rate.dtype)).mean()

    def prepare(self, targets: Tensor, outputs: Float[Tensor, "member few *output"]) -> Tensor:
        """Check that the targets are non-negative integers, and cast them to int64."""
        counts = whole(one_to_one(targets, outputs))
        if bool((negative := counts < 0).any()):
            raise InputError(f"the targets must be non-negative counts, and one is {int(counts[negative][0])}")
        return counts

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Compute the KL divergence of the Poisson distributions, summed over counts. The temperature is not used."""
        log_rate, teacher_log_rate = outputs.double(), teacher_outputs.double()  # the terms cancel
        rate, teacher_rate = log_rate.exp(), teacher_log_rate.exp()
        divergences = teacher_rate * (teacher_log_rate - log_rate) - teacher_rate + rate
        return flatten_targets(divergences).sum(2).to(precise(outputs).dtype)
