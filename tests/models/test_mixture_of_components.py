"""The mixture of draws and members, against closed forms, sums written out and its own samples."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, Poisson, StudentT

from bayes_share.errors import InputError
from bayes_share.models.predictive import Predictive

approx = pytest.approx


class Counts(Poisson):
    """Poisson with a cdf, of whole numbers from 0 alone."""

    def cdf(self, value: Tensor) -> Tensor:
        assert bool((value >= 0).all())
        assert torch.equal(value, value.floor())
        return torch.special.gammaincc(value + 1, self.rate)


def normals(*output: int, seed: int = 0) -> Predictive:
    source = torch.Generator().manual_seed(seed)
    shape = (2, 3, 5, *output)
    loc = torch.randn(shape, generator=source, dtype=torch.float64)
    return Predictive(Normal(loc, 0.3 + torch.rand(shape, generator=source, dtype=torch.float64)))


def counts(*rates: float) -> Predictive:
    """Two draws with a rate each, for one example."""
    return Predictive(Counts(torch.tensor(rates).double().reshape(-1, 1, 1)))


def test_variances_are_of_the_samples() -> None:
    forecast = normals(2)
    samples = forecast.sample(40_000, torch.Generator().manual_seed(0))
    assert torch.allclose(samples.mean(0), forecast.mean, atol=0.03)
    assert torch.allclose(samples.var(0), forecast.variance, rtol=0.04)
    loc, scale = forecast.components.loc, forecast.components.scale  # type: ignore[attr-defined]
    second = (loc.square() + scale.square()).mean((0, 1))
    assert torch.allclose(forecast.variance, second - loc.mean((0, 1)).square())


def test_the_log_density_is_of_all_outputs_of_one_component_together() -> None:
    forecast, targets = normals(2), torch.randn(5, 2, dtype=torch.float64)
    each = forecast.components.log_prob(targets).exp()
    assert torch.allclose(forecast.log_prob(targets), each.prod(-1).mean((0, 1)).log())


def test_the_outputs_of_a_sample_come_from_one_component() -> None:
    loc = torch.tensor([-100.0, 100.0]).double().reshape(2, 1, 1, 1).expand(2, 1, 3, 2)
    samples = Predictive(Normal(loc, 1.0)).sample(500, torch.Generator().manual_seed(0))
    signs = samples.sign()
    assert torch.equal(signs[..., 0], signs[..., 1])
    assert (signs[:, 0, 0] != signs[:, 1, 0]).any()  # examples have components of their own
    assert 200 < int((signs[:, 0, 0] > 0).sum()) < 300
    again = Predictive(Normal(loc, 1.0)).sample(500, torch.Generator().manual_seed(0))
    assert torch.equal(samples, again)


def test_quantiles_of_a_normal() -> None:
    forecast = Predictive(Normal(torch.full((1, 1, 1), 3.0).double(), 2.0))
    found = forecast.quantile([0.025, 0.5, 0.975]).flatten()
    assert found.tolist() == approx([3 - 2 * 1.959963984540054, 3, 3 + 2 * 1.959963984540054], rel=1e-12)


def test_quantiles_undo_the_cdf() -> None:
    forecast = normals(2)
    for level in (1e-6, 0.1, 0.5, 0.999):
        (values,) = forecast.quantile([level])
        assert torch.allclose(forecast.cdf(values), torch.tensor(level, dtype=torch.float64), rtol=1e-9)


def test_a_scale_that_is_lost_beside_the_mean_has_quantiles() -> None:
    forecast = Predictive(Normal(torch.full((1, 1, 1), 1e20).double(), 1e-5))
    assert forecast.quantile([0.1, 0.9]).flatten().tolist() == approx([1e20, 1e20])


class Cauchy(StudentT):
    """Student-t of one degree of freedom, with its cdf: no mean, no variance."""

    def cdf(self, value: Tensor) -> Tensor:
        return 0.5 + ((value - self.loc) / self.scale).atan() / math.pi


def test_a_distribution_without_a_mean_has_quantiles() -> None:
    forecast = Predictive(Cauchy(1.0, torch.full((1, 1, 1), 5.0).double(), 2.0))
    assert forecast.quantile([0.25, 0.75]).flatten().tolist() == approx([3.0, 7.0])


def test_quantiles_of_counts_are_the_smallest_whole_numbers_with_enough_below() -> None:
    rates = torch.tensor([[0.01, 3.0, 200.0], [2.0, 5.0, 210.0]]).double()[:, None]  # mixed sizes, side by side
    forecast = Predictive(Counts(rates))
    ks = torch.arange(400.0).double()
    cdf = Counts(rates[:, 0, :, None]).log_prob(ks).exp().cumsum(-1).mean(0)
    for level in (0.01, 0.3, 0.5, 0.95):
        (found,) = forecast.quantile([level])
        assert found.tolist() == [int((row < level).sum()) for row in cdf]


def test_below_a_count() -> None:
    forecast = counts(1.0, 4.0)
    zero = (math.exp(-1) + math.exp(-4)) / 2
    for value, expected in ((0.0, 0.0), (0.5, zero), (1.0, zero)):
        assert forecast.cdf_below(torch.tensor([value]).double()).item() == approx(expected)
    assert forecast.cdf(torch.tensor([-1.0]).double()).item() == 0
    assert forecast.cdf(torch.tensor([0.9]).double()).item() == approx(zero)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(InputError, match=r"of batch shape \[draw, member, example, \*output\]"):
        Predictive(Normal(torch.zeros(3), 1.0))
    with pytest.raises(InputError, match=r"must be of shape \[1\], and are of \[2\]"):
        counts(1.0).cdf(torch.zeros(2))
    with pytest.raises(InputError, match=r"Counts gives no probability: 1 of 1, the first of them 0\.5"):
        counts(1.0).log_prob(torch.tensor([0.5]))
    with pytest.raises(InputError, match="targets that are NaN: 1 of 1"):
        counts(1.0).log_prob(torch.tensor([math.nan]))
    with pytest.raises(InputError, match="between 0 and 1, not 1"):
        counts(1.0).quantile([0.5, 1])
    with pytest.raises(InputError, match="Poisson has no cdf"):
        Predictive(Poisson(torch.ones(1, 1, 1))).quantile([0.5])
