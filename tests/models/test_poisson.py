"""Poisson probabilities at any rate, against arbitrary-precision arithmetic."""

import mpmath
import pytest
import torch

from bayes_share.models.distributions import Poisson
from bayes_share.models.poisson import poisson_cdf, poisson_prob
from bayes_share.models.predictive import Predictive

RATES = [1e-8, 0.5, 90.0, 150.0, 9.9e4, 1.1e5, 1e6, 1e9, 1e12]


@pytest.mark.parametrize("rate", RATES)
def test_probabilities_match_arbitrary_precision(rate: float) -> None:
    counts = sorted({max(0.0, float(int(rate + sds * rate**0.5))) for sds in (-8, -5, -2, -0.3, 0, 0.3, 2, 5, 8)})
    found = poisson_prob(torch.tensor(counts, dtype=torch.float64), torch.tensor(rate, dtype=torch.float64))
    with mpmath.workdps(50):
        exact = [
            float(mpmath.exp(k * mpmath.log(mpmath.mpf(rate)) - mpmath.mpf(rate) - mpmath.loggamma(k + 1)))
            for k in map(int, counts)
        ]
        assert found.tolist() == pytest.approx(exact, rel=1e-12)
        if rate < 1e7:
            cdf = [float(mpmath.gammainc(k + 1, a=rate, regularized=True)) for k in map(int, counts)]
            there = poisson_cdf(torch.tensor(counts, dtype=torch.float64), torch.tensor(rate, dtype=torch.float64))
            assert there.tolist() == pytest.approx(cdf, rel=2e-9)  # of torch's gammaincc; beyond 1e5 counts 1e-14


def test_the_cdf_at_a_large_rate_is_the_sum_of_the_probabilities() -> None:
    rate = torch.tensor(1e12, dtype=torch.float64)
    counts = rate + torch.arange(-6_000_000, -4_500_000, dtype=torch.float64)
    found = poisson_cdf(counts[-1], rate) - poisson_cdf(counts[0] - 1, rate)
    assert found.item() == pytest.approx(poisson_prob(counts, rate).sum().item(), rel=1e-9)


def test_the_cdf_is_0_for_negative_counts_and_0_or_1_far_from_the_rate() -> None:
    rates = torch.tensor([3.0, 1e12, 1e12, 1e150], dtype=torch.float64)
    counts = torch.tensor([-1.0, 4.0, 3e12, 7.0], dtype=torch.float64)
    assert poisson_cdf(counts, rates).tolist() == [0.0, 0.0, 1.0, 0.0]
    assert poisson_prob(counts, rates).tolist() == [0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("rate", [1e-8, 3.0, 1e6, 1e12])
def test_a_quantile_is_the_smallest_count_whose_cdf_reaches_the_level(rate: float) -> None:
    found = Predictive(Poisson(torch.tensor([rate, 1.1 * rate], dtype=torch.float64).reshape(1, 2, 1)))
    for level in (1e-6, 0.05, 0.5, 0.95, 1 - 1e-6):
        (quantile,) = found.quantile([level])
        assert found.cdf_below(quantile).item() < level <= found.cdf(quantile).item()
