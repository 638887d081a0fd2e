"""Numbers with normal noise."""

import math
from collections.abc import Mapping

from jaxtyping import Float, Num
from torch import Tensor
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.distributions import Normal
from bayes_share.models.likelihoods.base import Likelihood
from bayes_share.models.likelihoods.location_scale import LocationScale, Noise
from bayes_share.models.likelihoods.outputs import each


class Gaussian(LocationScale):
    """Numbers that lie around the outputs with normal noise: regression.

    Args:
        noise: standard deviation of the noise; where it is learned, at the start. "predicted": the network has two
            outputs for each target, on the last axis: first all means, then a number for each standard deviation,
            which is its softplus plus 1.2e-7.
        learned: whether one standard deviation for all is learned.
        beta: from 0 to 1, where the noise is predicted: in training, each target's loss is multiplied by its variance
            to the power of beta, through which no gradient passes (β-NLL, arXiv 2203.09168, equation 7). At 0 it is the
            negative log-likelihood; at 1 the means are learned as by squared errors; the paper recommends 0.5. What is
            reported as a likelihood is one, whatever beta. For algorithms that draw from no posterior: `MAP`,
            `MCDropout`, and `DeepEnsemble` and `Distill` of these.

    Raises:
        InputError: noise that is not positive, or both learned and predicted; another beta, or one above 0 where the
            noise is not predicted.

    >>> import torch
    >>> Gaussian("predicted").arguments(torch.tensor([[[3.0, 0.0]]]))
    {'loc': tensor([[3.]]), 'scale': tensor([[0.6931]])}
    """

    name = "normal"

    def __init__(self, noise: Noise = 1.0, learned: bool = False, beta: float = 0.0) -> None:
        super().__init__(noise, learned)
        if isinstance(beta, bool | str) or not 0 <= beta <= 1:
            raise InputError(f"beta is a number from 0 to 1, and is {beta}")
        if beta and not self.is_predicted:
            raise InputError(f'beta={beta:g} weights examples by their noise, and goes with noise="predicted"')
        self.beta = float(beta)

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Normal."""
        return Normal(arguments["loc"], arguments["scale"])

    def losses(
        self, outputs: Float[Tensor, "member batch *output"], targets: Num[Tensor, "member batch *target"]
    ) -> tuple[Float[Tensor, "member batch"], Float[Tensor, "member batch"]]:
        """β-NLL and the log density, summed over the targets."""
        if not self.beta:
            return super().losses(outputs, targets)
        found, scale = self._log_densities(outputs, targets)
        weights = scale.detach() ** (2 * self.beta)
        return -each(weights * found).sum(2), each(found).sum(2)

    def why_no_posterior(self) -> str | None:
        """With a beta, the loss is no likelihood."""
        return f"with beta={self.beta:g} the loss is not a negative log-likelihood" if self.beta else None

    def standard_log_density(self, errors: Tensor) -> Tensor:
        """Of the standard normal distribution."""
        return -0.5 * (errors.square() + math.log(2 * math.pi))

    def standard_information(self) -> tuple[float, float]:
        """1 and 2."""
        return 1.0, 2.0

    def extra_repr(self) -> str:
        """The options, for printing."""
        return super().extra_repr() + (f", beta={self.beta:g}" if self.beta else "")

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Of the normal distributions, each with its own noise, summed over the targets; whatever the temperature.

        Raises:
            InputError: a teacher of which only one of the two predicts the noise.
        """
        assert isinstance(teacher, Gaussian)
        if self.is_predicted != teacher.is_predicted:
            raise InputError('the teacher and the student must both be of noise="predicted", or neither')
        loc, scale = self.located(outputs)
        their_loc, their_scale = teacher.located(teacher_outputs)
        ratio = their_scale.detach() / scale
        found = 0.5 * (ratio.square() + ((loc - their_loc) / scale).square() - 1) - ratio.log()
        return each(found).sum(2)
