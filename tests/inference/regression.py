"""Bayesian linear regression with a known posterior: ten examples with correlated inputs, for several networks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.inference import Build
from bayes_share.inference.draws.thinning import spread
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

NOISE = 0.5
NUM_DATA, NUM_INPUTS = 10, 3
PRIOR_SD = {"base": 1.0, "factor": 0.7}
"""Prior standard deviations: of unknown base weights around 0, and of unknown factors around 1."""


def data() -> tuple[Tensor, Tensor]:
    """Return inputs ``[10, 3]`` with correlations of about 0.8, and targets ``[10]``."""
    generator = torch.Generator().manual_seed(7)
    common = torch.randn(NUM_DATA, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(NUM_DATA, NUM_INPUTS, generator=generator, dtype=torch.float64)
    x = 0.8 * common + 0.6 * own
    noise = NOISE * torch.randn(NUM_DATA, generator=generator, dtype=torch.float64)
    return x, x @ torch.tensor([1.5, -0.8, 0.4], dtype=torch.float64) + noise


@dataclass(frozen=True)
class Posterior:
    """A distribution of each member's effective weights, the coefficients of the inputs.

    Args:
        mean: ``[member, input]``.
        covariance: ``[member, input, input]``.
    """

    mean: Tensor
    covariance: Tensor

    @property
    def sd(self) -> Tensor:
        """The standard deviations, ``[member, input]``."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()


@dataclass(frozen=True)
class Problem:
    """A linear network with an unknown base weight or unknown factors; all other parameters are frozen.

    Args:
        name: the id in parametrised tests.
        members: the ensemble size. With 1 and an unknown base weight, the network is a plain torch layer.
        unknown: "base": the weight is unknown and the factors are known; "factor": r is unknown, the rest is known.
    """

    name: str
    members: int
    unknown: str

    def build(self, priors: Any = None) -> Build:
        """Return a builder of the model in float64, with `priors` if given."""

        def build() -> Model:
            net: nn.Module = nn.Linear(NUM_INPUTS, 1, bias=False)
            if self.members > 1 or self.unknown == "factor":
                net = ensemble(net, self.members, init="ones", strategy="tile")
                layer = net.network
                factor_r, factor_s, weight = self._known()
                layer.r.data.copy_(factor_r)
                layer.s.data.copy_(factor_s)
                frozen = [layer.s, layer.r if self.unknown == "base" else layer.weight]
                if self.unknown == "factor":
                    layer.weight.data.copy_(weight)
                for parameter in frozen:
                    parameter.requires_grad_(False)
            likelihood = Gaussian(NOISE)
            model = Model(net, likelihood) if priors is None else Model(net, likelihood, priors)
            return model.double()

        return build

    def exact(self, is_shared: bool = True) -> Posterior:
        """Return the exact posterior; for a shared weight, that under the mean log-likelihood of the members.

        Args:
            is_shared: whether members share the base weight, or each has its own copy.
        """
        x, y = data()
        scales = self._scales()  # [member, input]
        features = x * scales.unsqueeze(1)  # [member, example, input]
        centre, precision = self._prior()
        gram = features.mT @ features / NOISE**2
        moment = (features.mT @ y.unsqueeze(-1)).squeeze(-1) / NOISE**2
        if self.unknown == "base" and is_shared:
            gram, moment = gram.mean(0, keepdim=True), moment.mean(0, keepdim=True)
        covariance = torch.linalg.inv(gram + precision * torch.eye(NUM_INPUTS, dtype=torch.float64))
        mean = (covariance @ (moment + precision * centre).unsqueeze(-1)).squeeze(-1)
        return Posterior(mean * scales, covariance * scales.unsqueeze(-1) * scales.unsqueeze(-2))

    def mean_field(self) -> Posterior:
        """Return the independent normals closest in KL(q‖p): with the exact means and the diagonal of the precision."""
        exact = self.exact()
        precisions = torch.linalg.inv(exact.covariance).diagonal(dim1=-2, dim2=-1)
        return Posterior(exact.mean, torch.diag_embed(1 / precisions))

    def prior(self) -> Posterior:
        """Return the prior of the effective weights."""
        centre, precision = self._prior()
        scales = self._scales()
        return Posterior(centre * scales, torch.diag_embed(scales.square() / precision))

    def priors(self) -> dict[str, Any]:
        """Return the prior of the unknown parameters, for `build`."""
        from pyro.distributions import Normal

        centre, precision = self._prior()
        return {self.unknown: Normal(torch.tensor(centre), torch.tensor(precision**-0.5))}

    def _prior(self) -> tuple[float, float]:
        return float(self.unknown == "factor"), 1 / PRIOR_SD[self.unknown] ** 2

    def _known(self) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(3)
        r = 1 + 0.3 * torch.randn(self.members, NUM_INPUTS, generator=generator, dtype=torch.float64)
        s = 1 + 0.3 * torch.randn(self.members, 1, generator=generator, dtype=torch.float64)
        weight = torch.tensor([[0.9, -1.2, 1.1]], dtype=torch.float64)
        return r, s, weight

    def _scales(self) -> Tensor:
        """Return the known scales that turn unknown parameters into effective weights, ``[member, input]``."""
        r, s, weight = self._known()
        if self.members == 1 and self.unknown == "base":
            return torch.ones(1, NUM_INPUTS, dtype=torch.float64)
        return r * s if self.unknown == "base" else weight * s


def misses_of_chain(found: Tensor, posterior: Posterior) -> list[str]:
    """Describe where the draws of a chain differ from a posterior by more than their Monte Carlo error.

    Args:
        found: draws ``[draw, member, input]``, in the order of the chain.
        posterior: the expected posterior. Up to four standard errors, by effective sample size, are accepted.
    """
    from pyro.ops.stats import effective_sample_size

    if not found.std(0).min() > 1e-3 * posterior.sd.max():
        return ["the chain stands still"]
    problems = []
    centred = (found - posterior.mean) / posterior.sd
    # The standard deviations of a standard normal variable and of its square.
    for name, values, expected, sd in (("means", centred, 0.0, 1.0), ("variances", centred.square(), 1.0, 2**0.5)):
        errors = (values.mean(0) - expected) / sd * effective_sample_size(values[None], 0, 1).sqrt()
        if not errors.abs().max() < 4:
            problems.append(f"the {name} are off by {errors.tolist()} standard errors")
    return problems


def chain_order(count: int) -> list[int]:
    """Return the indices that put the draws given by `spread` into the order of the chain."""
    return sorted(range(count), key=lambda sample: spread(range(count), sample))


PROBLEMS = [
    Problem("layer", 1, "base"),
    Problem("rank-1, r unknown", 1, "factor"),
    Problem("ensemble, W unknown", 3, "base"),
    Problem("ensemble, r unknown", 3, "factor"),
]

_QUICK = (PROBLEMS[0], PROBLEMS[-1])  # a single layer with an unknown weight, and an ensemble with unknown factors
EACH = pytest.mark.parametrize(
    "problem",
    [pytest.param(p, id=p.name, marks=() if p in _QUICK else pytest.mark.slow) for p in PROBLEMS],
)
"""Parametrise a test over all problems, two of them slow."""


def draws(draw: Callable[[int], Callable[[Tensor], Tensor]], count: int = 4000) -> Tensor:
    """Return the effective weights of each draw and member, ``[draw, member, input]``, read off predictions.

    Args:
        draw: returns draw number i, such as ``partial(algorithm.draw, state)``.
        count: the number of draws.
    """
    identity = torch.eye(NUM_INPUTS, dtype=torch.float64)
    return torch.stack([draw(sample)(identity).squeeze(-1) for sample in range(count)])


def misses(found: Tensor, posterior: Posterior, mean: float = 0.1, sd: float = 0.1) -> list[str]:
    """Describe where draws do not have the mean and the standard deviation of a posterior.

    Args:
        found: independent draws ``[draw, member, input]``.
        posterior: the expected posterior.
        mean: the largest accepted error of the mean, in standard deviations; four standard errors are added.
        sd: the largest accepted relative error of the standard deviation; four standard errors are added.
    """
    count = len(found)
    problems = []
    mean_errors = (found.mean(0) - posterior.mean) / posterior.sd
    sd_errors = found.std(0) / posterior.sd - 1
    if not mean_errors.abs().max() < mean + 4 / count**0.5:
        problems.append(f"the means are off by {mean_errors.tolist()} standard deviations")
    if not sd_errors.abs().max() < sd + 4 / (2 * count) ** 0.5:
        problems.append(f"the standard deviations are off by {sd_errors.tolist()} of them")
    return problems
