"""The Gaussian likelihood for regression."""

import math
from collections.abc import Mapping

from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.distributions import Normal
from bayes_share.models.likelihoods.base import Likelihood
from bayes_share.models.likelihoods.location_scale import LocationScale, Noise
from bayes_share.models.likelihoods.outputs import flatten_targets


class Gaussian(LocationScale):
    """Regression with normally distributed noise around the outputs.

    Args:
        noise: the standard deviation of the noise; its initial value if `learned`. "predicted": the network has two
            outputs per target, on the last axis: first all means, then one output per standard deviation, which is the
            softplus of that output plus 1.2e-7.
        learned: whether a single standard deviation, shared by all targets, is learned.
        beta: a number from 0 to 1, for predicted noise. In training, the loss of each target is multiplied by its
            variance to the power beta, without a gradient through this factor (β-NLL, arXiv 2203.09168, equation 7).
            0 gives the negative log-likelihood, 1 trains the means as squared errors do; the paper recommends 0.5.
            Reported likelihoods do not depend on beta. A beta above 0 requires an algorithm that does not sample a
            posterior: `MAP`, `MCDropout`, or `DeepEnsemble` or `Distill` with one of these.

    Raises:
        InputError: if the noise is not positive, or both learned and predicted; if beta is not in [0, 1], or above 0
            although the noise is not predicted.

    >>> import torch
    >>> Gaussian("predicted").arguments(torch.tensor([[[3.0, 0.0]]]))
    {'loc': tensor([[3.]]), 'scale': tensor([[0.6931]])}
    """

    name = "normal"

    def __init__(self, noise: Noise = 1.0, learned: bool = False, beta: float = 0.0) -> None:
        super().__init__(noise, learned)
        if isinstance(beta, bool | str) or not 0 <= beta <= 1:
            raise InputError(f"beta must be a number from 0 to 1, not {beta}")
        if beta and not self.is_predicted:
            raise InputError(f'beta={beta:g} weights examples by their noise: it requires noise="predicted"')
        self.beta = float(beta)

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Return the normal distribution."""
        return Normal(arguments["loc"], arguments["scale"])

    def losses(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> tuple[Float[Tensor, "member batch"], Float[Tensor, "member batch"]]:
        """Return the β-NLL and the log density, summed over the targets."""
        if not self.beta:
            return super().losses(outputs, targets)
        log_densities, scale = self._log_densities(outputs, targets)
        weights = scale.detach() ** (2 * self.beta)
        return -flatten_targets(weights * log_densities).sum(2), flatten_targets(log_densities).sum(2)

    def why_no_posterior(self) -> str | None:
        """A reason if beta is above 0, because the loss is then not a negative log-likelihood."""
        return f"with beta={self.beta:g} the loss is not a negative log-likelihood" if self.beta else None

    def standard_log_density(self, errors: Tensor) -> Tensor:
        """Compute the log density of the standard normal distribution."""
        return -0.5 * (errors.square() + math.log(2 * math.pi))

    def standard_information(self) -> tuple[float, float]:
        """Return 1 and 2, the Fisher information of mean and standard deviation at scale 1."""
        return 1.0, 2.0

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
        return super().extra_repr() + (f", beta={self.beta:g}" if self.beta else "")

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Compute the KL divergence of the normal distributions, summed over the targets. The temperature is not used.

        Raises:
            InputError: if only one of teacher and student predicts the noise.
        """
        assert isinstance(teacher, Gaussian)
        if self.is_predicted != teacher.is_predicted:
            raise InputError('either both teacher and student must have noise="predicted", or neither')
        loc, scale = self.located(outputs)
        teacher_loc, teacher_scale = teacher.located(teacher_outputs)
        ratio = teacher_scale.detach() / scale
        kl = 0.5 * (ratio.square() + ((loc - teacher_loc) / scale).square() - 1) - ratio.log()
        return flatten_targets(kl).sum(2)
