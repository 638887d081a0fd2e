"""The KL divergence of guides from priors, against torch's closed forms or Monte Carlo estimates."""

from itertools import product
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from bayes_share.errors import InputError
from bayes_share.inference.methods.svi.divergence import Divergence
from bayes_share.inference.methods.svi.guides import Delta, MeanField, Piece, support_of
from bayes_share.sharing.kinds import ParameterKind

SHAPE = (3, 2)  # of a shared site; or of three members, with a site of shape [2] each


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


MIXTURE = dist.MixtureSameFamily(dist.Categorical(numbers(0.3, 0.7)), dist.Normal(numbers(0.0, 0.5), numbers(0.2, 1.0)))
PRIORS: dict[str, Any] = {
    "normal": dist.Normal(numbers(0.3, -0.2), numbers(0.8, 1.5)),
    "laplace": dist.Laplace(numbers(0.3, -0.2), numbers(0.8, 1.5)),
    "cauchy": dist.Cauchy(numbers(0.3, -0.2), numbers(0.8, 1.5)),
    "student": dist.StudentT(numbers(3.0), numbers(0.1), numbers(0.9)),
    "mixture": MIXTURE,
    "log-normal": dist.LogNormal(numbers(0.3, -0.2), numbers(0.8, 1.5)),
    "half-cauchy": dist.HalfCauchy(numbers(0.8, 1.5)),
    "gamma": dist.Gamma(numbers(2.0), numbers(1.5)),
    "uniform": dist.Uniform(numbers(-2.0, -1.0), numbers(2.0, 3.0)),
    "beta": dist.Beta(numbers(2.0), numbers(3.0)),
}
LIGHT_TAILED = ("normal", "laplace", "mixture")
BOUNDED = ("log-normal", "half-cauchy", "gamma", "uniform", "beta")


def prior_of(name: str) -> Any:
    return PRIORS[name].expand(SHAPE).to_event(2)


def guide_of(family: str, names: list[str], kind: ParameterKind = "base") -> Any:
    pieces = [
        Piece(name, torch.full(SHAPE, 0.4, dtype=torch.float64), support_of(prior_of(name)), kind) for name in names
    ]
    guide = Delta(pieces) if family == "delta" else MeanField(pieces, 0.3, family)  # type: ignore[arg-type]
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=source, dtype=torch.float64)
    return guide


def divergence_of(guide: Any, scale: float = 1.0) -> Divergence:
    names = [piece.name for piece in guide.pieces]
    return Divergence(guide, {name: prior_of(name) for name in names}, dict.fromkeys(names, scale))


def site_distribution(guide: Any, name: str) -> Any:
    """Return torch's distribution of a site's values under the guide."""
    (piece,) = [piece for piece in guide.pieces if piece.name == name]
    family = dist.Cauchy if guide.family == "cauchy" else dist.Normal
    base = family(guide.loc.reshape(SHAPE), guide.scale.reshape(SHAPE))
    return dist.TransformedDistribution(base, [piece.transform]) if not piece.is_real else base


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *product(["normal"], PRIORS),
        # Others are refused: see test_an_infinite_divergence_is_refused and test_guides.py.
        *(("cauchy", name) for name in PRIORS if name not in (*LIGHT_TAILED, *BOUNDED)),
    ],
)
def test_the_divergence_of_every_guide_and_prior_is_correct(family: str, name: str) -> None:
    guide = guide_of(family, [name])
    divergence, prior = divergence_of(guide), prior_of(name)
    torch.manual_seed(0)
    found = torch.stack([divergence(guide, guide()) for _ in range(1500)]).detach()
    if (family, name) in (("normal", "normal"), ("cauchy", "cauchy")):
        expected = kl_divergence(site_distribution(guide, name), prior.base_dist).sum().detach()
        torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-10, atol=1e-10)
        return
    if name == "log-normal":
        normal = dist.Normal(guide.loc.reshape(SHAPE), guide.scale.reshape(SHAPE))
        expected = kl_divergence(normal, dist.Normal(numbers(0.3, -0.2), numbers(0.8, 1.5))).sum().detach()
        torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-10, atol=1e-10)
        return
    with torch.no_grad():
        q = site_distribution(guide, name)
        values = q.sample((40_000,))
        terms = (q.log_prob(values) - prior.base_dist.log_prob(values)).sum((1, 2))
    error = float((terms.var() / len(terms) + found.var() / len(found)).sqrt())
    assert abs(float(found.mean() - terms.mean())) < 4 * error
    assert error < 0.05 * abs(float(terms.mean()))


@pytest.mark.parametrize("name", PRIORS)
def test_the_divergence_of_a_delta_guide_is_the_negative_log_prior(name: str) -> None:
    guide = guide_of("delta", [name])
    value = guide.values(guide.loc)[name]
    assert bool(prior_of(name).support.check(value))
    found = divergence_of(guide, 0.5)(guide, guide())
    torch.testing.assert_close(found, -0.5 * prior_of(name).log_prob(value), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", ["normal", "delta"])
def test_the_divergence_is_the_sum_over_sites(family: str) -> None:
    names = list(PRIORS)
    guide = guide_of(family, names)
    torch.manual_seed(0)
    z = guide()
    found = divergence_of(guide)(guide, z)
    alone = []
    for name, part in zip(names, range(0, z.shape[1], 6), strict=True):
        one = guide_of(family, [name])
        with torch.no_grad():
            for mine, all_of in zip(one.parameters(), guide.parameters(), strict=True):
                mine.copy_(all_of[:, part : part + 6])
        alone.append(divergence_of(one)(one, z[:, part : part + 6]))
    torch.testing.assert_close(found, torch.stack(alone).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", ["normal", "delta"])
@pytest.mark.parametrize("name", PRIORS)
def test_the_divergence_of_member_parameters_is_averaged_over_members(name: str, family: str) -> None:
    shared, own = guide_of(family, [name]), guide_of(family, [name], "factor")
    with torch.no_grad():
        for mine, theirs in zip(own.parameters(), shared.parameters(), strict=True):
            mine.copy_(theirs.reshape(3, 2))
    torch.manual_seed(0)
    z = shared()
    once = divergence_of(shared)(shared, z)
    averaged = divergence_of(own, 1 / 3)(own, z.reshape(3, 2))
    torch.testing.assert_close(averaged, once / 3, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LIGHT_TAILED)
def test_an_infinite_divergence_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"divergence of a cauchy guide from the prior of {name} is infinite"):
        divergence_of(guide_of("cauchy", [name]))


@pytest.mark.parametrize("name", ["normal", "laplace", "half-cauchy", "uniform"])
def test_the_gradient_equals_finite_differences_of_the_mean(name: str) -> None:
    guide = guide_of("normal", [name])
    divergence = divergence_of(guide)

    def mean(count: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.stack([divergence(guide, guide()) for _ in range(count)]).mean()

    gradients = torch.autograd.grad(mean(400, 0), list(guide.parameters()))
    for parameter, gradient in zip(guide.parameters(), gradients, strict=True):
        for at in (0, 3):
            with torch.no_grad():
                parameter[0, at] += 1e-4
                above = float(mean(400, 0))
                parameter[0, at] -= 2e-4
                below = float(mean(400, 0))
                parameter[0, at] += 1e-4
            assert float(gradient[0, at]) == pytest.approx((above - below) / 2e-4, rel=1e-4, abs=1e-6)
