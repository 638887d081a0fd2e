"""Numbers with noise of heavy tails."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.distributions import Distribution

from bayes_share.errors import InputError
from bayes_share.models.distributions import StudentT as StudentTDistribution
from bayes_share.models.likelihoods.base import Likelihood
from bayes_share.models.likelihoods.location_scale import LocationScale, Noise


class StudentT(LocationScale):
    """Numbers that lie around the outputs with noise of Student's t distribution: regression with outliers.

    Args:
        df: degrees of freedom; where they are learned, at the start. They are above 2, learned ones too, so that the
            variance is finite.
        noise: scale of the noise, ``sqrt((df - 2) / df)`` of its standard deviation; else as of `Gaussian`.
        learned: whether one scale for all is learned.
        learned_df: whether the degrees of freedom are learned.

    Raises:
        InputError: degrees of freedom of at most 2; noise that is not positive, or both learned and predicted.

    >>> StudentT(df=3.0).log_lik(torch.zeros(1, 1, 1), torch.zeros(1, 1)).exp()
    tensor([[0.3676]])
    """

    name = "student_t"
    log_excess: Tensor

    def __init__(self, df: float = 4.0, noise: Noise = 1.0, learned: bool = False, learned_df: bool = False) -> None:
        super().__init__(noise, learned)
        if isinstance(df, bool | str) or not 2 < df < math.inf:
            raise InputError(f"df is a number above 2, where the variance is finite, and is {df}")
        self._register("log_excess", df - 2, learned_df)

    @property
    def df(self) -> Tensor:
        """Degrees of freedom."""
        return 2 + self.log_excess.exp()

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """``df``, ``loc`` and ``scale``."""
        found = super().arguments(outputs)
        df = 2 + self.log_excess.to(found["loc"].dtype).exp()
        return {"df": self._of_all(df, found["loc"]), **found}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Student's t."""
        return StudentTDistribution(arguments["df"], arguments["loc"], arguments["scale"])

    def standard_log_density(self, errors: Tensor) -> Tensor:
        """Of Student's t distribution."""
        df = 2 + self.log_excess.double().exp()  # of many, the difference of logs of Γ is lost in float32
        normaliser = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log()
        df, normaliser = df.to(errors.dtype), normaliser.to(errors.dtype)
        return normaliser - (df + 1) / 2 * (errors.square() / df).log1p()

    def standard_information(self) -> tuple[Tensor, Tensor]:
        """``(df + 1) / (df + 3)`` and ``2 df / (df + 3)``."""
        df = self.df
        return (df + 1) / (df + 3), 2 * df / (df + 3)

    def extra_repr(self) -> str:
        """The options, for printing."""
        learned_df = isinstance(self.log_excess, nn.Parameter)
        return f"df={float(self.df.detach()):.4g}, {super().extra_repr()}, learned_df={learned_df}"

    def divergence(
        self,
        outputs: Float[Tensor, "member batch *output"],
        teacher: Likelihood,
        teacher_outputs: Float[Tensor, "member batch *output"],
        targets: Num[Tensor, "member batch *target"],
        temperature: float,
    ) -> Float[Tensor, "member batch"]:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError("two Student's t distributions have no divergence in closed form: distil under a Gaussian")
