"""The Student's t likelihood for regression with outliers."""

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
    """Regression with Student's t distributed noise around the outputs, which is robust to outliers.

    Args:
        df: the degrees of freedom; their initial value if `learned_df`. They are always above 2, also if learned, so
            that the variance is finite.
        noise: the scale of the noise, which is ``sqrt((df - 2) / df)`` times its standard deviation; otherwise as in
            `Gaussian`.
        learned: whether a single scale, shared by all targets, is learned.
        learned_df: whether the degrees of freedom are learned.

    Raises:
        InputError: if the degrees of freedom are at most 2, or the noise is not positive, or both learned and
            predicted.

    >>> StudentT(df=3.0).log_lik(torch.zeros(1, 1, 1), torch.zeros(1, 1)).exp()
    tensor([[0.3676]])
    """

    name = "student_t"
    log_excess: Tensor

    def __init__(self, df: float = 4.0, noise: Noise = 1.0, learned: bool = False, learned_df: bool = False) -> None:
        super().__init__(noise, learned)
        if isinstance(df, bool | str) or not 2 < df < math.inf:
            raise InputError(f"df must be a finite number above 2, so that the variance is finite, not {df}")
        self._register("log_excess", df - 2, learned_df)

    @property
    def df(self) -> Tensor:
        """The degrees of freedom."""
        return 2 + self.log_excess.exp()

    def arguments(self, outputs: Float[Tensor, "member batch *output"]) -> dict[str, Tensor]:
        """Return ``df``, ``loc`` and ``scale``."""
        loc_and_scale = super().arguments(outputs)
        df = 2 + self.log_excess.to(loc_and_scale["loc"].dtype).exp()
        return {"df": self._expanded(df, loc_and_scale["loc"]), **loc_and_scale}

    def of(self, arguments: Mapping[str, Tensor]) -> Distribution:
        """Return Student's t distribution."""
        return StudentTDistribution(arguments["df"], arguments["loc"], arguments["scale"])

    def standard_log_density(self, errors: Tensor) -> Tensor:
        """Compute the log density of Student's t distribution."""
        df = 2 + self.log_excess.double().exp()  # in float64: for large df the difference of log-gammas would cancel
        normaliser = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - 0.5 * (df * math.pi).log()
        df, normaliser = df.to(errors.dtype), normaliser.to(errors.dtype)
        return normaliser - (df + 1) / 2 * (errors.square() / df).log1p()

    def standard_information(self) -> tuple[Tensor, Tensor]:
        """Return ``(df + 1) / (df + 3)`` and ``2 df / (df + 3)``."""
        df = self.df
        return (df + 1) / (df + 3), 2 * df / (df + 3)

    def extra_repr(self) -> str:
        """The options, for ``repr``."""
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
        """Raise InputError, because Student's t distributions have no KL divergence in closed form.

        Raises:
            InputError: always.
        """
        raise InputError(
            "distillation requires a KL divergence in closed form, which Student's t distributions lack: use a Gaussian"
        )
