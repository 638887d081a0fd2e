"""Scores of numbers against formulas, numerical integration and calibrated forecasts."""

import math
import sys

import numpy as np
import pytest
import torch
from forecasts import Counts, calibrated, counts, normals
from scipy.integrate import quad
from scipy.stats import kstest, norm, poisson
from scipy.stats import t as student
from torch import Tensor
from torch.distributions import Exponential, Normal, StudentT

from bayes_share.errors import InputError
from bayes_share.evaluation.bootstrap_intervals import bootstrap
from bayes_share.evaluation.numbers import (
    Forecast,
    covered,
    crps,
    error_coverage,
    fit_pit_map,
    interval_score,
    nll,
    number_scores,
    number_terms,
    pit,
    quantile_calibration_error,
    width,
)
from bayes_share.evaluation.numbers.crps import _LEVELS, _by_quadrature
from bayes_share.evaluation.numbers.recalibration import PitMap
from bayes_share.models.distributions import Poisson
from bayes_share.models.predictive import Predictive

approx = pytest.approx


class Student(StudentT):
    """Student's t with the cdf of scipy."""

    def cdf(self, value: Tensor) -> Tensor:
        found = student.cdf(value.numpy(), *(each.numpy() for each in (self.df, self.loc, self.scale)))
        return torch.as_tensor(found)


def integral(forecast: Forecast, targets: Tensor, index: int, ends: float = 200.0) -> float:
    """The CRPS of one target from its definition, by adaptive quadrature."""

    def squared(z: float) -> float:
        values = torch.full_like(targets, z)
        return float(forecast.cdf(values)[index] - float(z >= targets[index])) ** 2

    y = float(targets[index])
    bends = [-1000.0, -100.0, -20.0, -5.0, -1.0, 1.0, 5.0, 20.0, 100.0, 1000.0]
    parts = [(-ends, y), (y, ends)]
    return sum(quad(squared, a, b, points=[x for x in bends if a < x < b], limit=500)[0] for a, b in parts)


def test_the_crps_of_one_normal_equals_the_closed_form() -> None:
    y, mu, sigma = torch.tensor([-3.0, 0.2, 40.0]).double(), 0.5, 1.7
    z = (y.numpy() - mu) / sigma
    expected = sigma * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))
    found = crps(Predictive(Normal(torch.full((1, 1, 3), mu).double(), sigma)), y)
    assert found.tolist() == approx(expected.tolist(), rel=1e-9)


def test_the_crps_of_a_mixture_equals_its_integral(monkeypatch: pytest.MonkeyPatch) -> None:
    forecast, targets = normals(6), torch.linspace(-4, 4, 6).double()
    found = crps(forecast, targets)
    assert found.tolist() == approx([integral(forecast, targets, i) for i in range(6)], rel=1e-7)
    assert torch.allclose(_by_quadrature(forecast.cdf, forecast.quantile(_LEVELS), targets), found, rtol=1e-5)
    monkeypatch.setattr(sys.modules[crps.__module__], "_AT_A_TIME", 7)  # an example at a time
    assert torch.allclose(crps(forecast, targets), found, rtol=1e-14)
    pairs = normals(3, 2)
    both = crps(pairs, torch.zeros(3, 2))
    left = Predictive(Normal(pairs.components.loc[..., 0], pairs.components.scale[..., 0]))  # type: ignore[attr-defined]
    assert torch.allclose(both[:, 0], crps(left, torch.zeros(3)))


@pytest.mark.parametrize("df", [1.5, 3.0, 30.0])
def test_the_crps_of_student_t_equals_its_integral(df: float) -> None:
    shape = (2, 1, 4)
    loc = torch.tensor([-1.0, 2.0]).double().reshape(2, 1, 1).expand(shape)
    forecast = Predictive(Student(torch.full(shape, df).double(), loc, torch.full(shape, 0.8).double()))
    targets = torch.tensor([-6.0, 0.0, 1.9, 15.0]).double()
    expected = [integral(forecast, targets, i, ends=1e5) for i in range(4)]
    assert crps(forecast, targets).tolist() == approx(expected, rel=1e-4)


def test_the_crps_of_counts_equals_its_sum() -> None:
    rates = torch.tensor([[0.5, 3.0, 40.0, 3.0], [2.0, 9.0, 80.0, 4.0]]).double()[:, None]
    forecast, targets = Predictive(Counts(rates)), torch.tensor([0, 5, 30, 400])
    ks = torch.arange(500.0).double()
    cdf = Counts(rates[:, 0, :, None]).log_prob(ks).exp().cumsum(-1).mean(0)
    expected = (cdf - (ks >= targets[:, None]).double()).square().sum(-1)
    assert crps(forecast, targets).tolist() == approx(expected.tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("rates", "count"),
    [
        ([1e-8], 0),
        ([1e-8, 2.0], 1),
        ([64.0, 64.1], 70),
        ([3.0, 65.0], 10),
        ([1e-8, 1000.0], 500),
        ([10.0, 60.0, 300.0, 2e5], 7),
        ([1e6, 1.001e6], 1_001_000),
        ([5e4], 400_000),
    ],
)
def test_the_crps_of_poisson_mixtures_equals_its_sum_for_all_rates(rates: list[float], count: int) -> None:
    each = torch.tensor(rates, dtype=torch.float64)
    ks = torch.arange(max(rates[-1], count) + 15 * rates[-1] ** 0.5 + 40, dtype=torch.float64)
    cdf = sum(poisson.cdf(ks.numpy(), rate) for rate in rates) / len(rates)
    expected = float(((cdf - (ks.numpy() >= count)) ** 2).sum())
    forecast, target = Predictive(Poisson(each.reshape(1, -1, 1))), torch.tensor([count])
    assert crps(forecast, target).item() == approx(expected, rel=2e-9)
    # Of nothing but quantiles and a cdf, as after recalibration.
    assert crps(PitMap(*[torch.linspace(0, 1, 2).double()] * 2)(forecast), target).item() == approx(expected, rel=2e-3)


def test_the_cost_of_scores_does_not_grow_with_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[int] = []
    own = Poisson.cdf

    def counted(self: Poisson, value: Tensor) -> Tensor:
        evaluated[-1] += 1
        return own(self, value)

    monkeypatch.setattr(Poisson, "cdf", counted)
    for rate in (1e6, 1e12):
        evaluated.append(0)
        rates = rate * (1 + 1e-3 * torch.rand(2, 4, 30, generator=torch.Generator().manual_seed(0)).double())
        forecast, targets = Predictive(Poisson(rates)), rates[0, 0].round()
        found = number_scores(forecast, targets, resamples=2)
        sd = math.sqrt(rate + (rate * 1e-3) ** 2 / 12)
        assert 0.2 < found["crps"].value / sd < 0.9
        crps(fit_pit_map(forecast, targets)(forecast), targets)
    assert max(evaluated) < 2500


def test_the_crps_of_a_large_rate_approaches_that_of_a_normal() -> None:
    rate = torch.tensor([[[1e12]]], dtype=torch.float64)
    targets = torch.tensor([1e12 + 2e6], dtype=torch.float64)
    found, normal = crps(Predictive(Poisson(rate)), targets), crps(Predictive(Normal(rate, rate.sqrt())), targets)
    assert found.item() == approx(normal.item(), rel=1e-6)  # but for a skewness of 1e-6


def test_scores_agree_with_scoringrules() -> None:
    rules = pytest.importorskip("scoringrules")
    forecast, targets = normals(5), torch.linspace(-2, 2, 5).double()
    loc, scale = (each.flatten(0, 1).T.numpy() for each in (forecast.components.loc, forecast.components.scale))  # type: ignore[attr-defined]
    expected = rules.crps_mixnorm(targets.numpy(), loc, scale, np.full_like(loc, 1 / 6))
    assert crps(forecast, targets).tolist() == approx(expected.tolist(), rel=1e-6)
    rates = torch.tensor([0.5, 3.0, 40.0]).double()
    found = crps(Predictive(Counts(rates[None, None])), torch.tensor([1, 2, 60]))
    assert found.tolist() == approx(rules.crps_poisson(np.array([1, 2, 60]), rates.numpy()).tolist(), rel=1e-6)
    low, high = forecast.quantile([0.05, 0.95]).numpy()
    expected = rules.interval_score(targets.numpy(), low, high, 0.1)
    assert interval_score(forecast, targets).tolist() == approx(expected.tolist())
    df = torch.full((1, 1, 3), 4.0).double()
    found = crps(Predictive(Student(df, 0.5 * df, 0.3 * df)), torch.tensor([-3.0, 2.0, 9.0]))
    assert found.tolist() == approx(rules.crps_t(np.array([-3.0, 2.0, 9.0]), 4.0, 2.0, 1.2).tolist(), rel=1e-4)


def test_the_interval_score_equals_its_formula() -> None:
    forecast = Predictive(Normal(torch.zeros(1, 1, 3).double(), 1.0))
    targets, end = torch.tensor([-3.0, 0.0, 2.0]).double(), 1.6448536269514722
    assert width(forecast, 0.9).tolist() == approx([2 * end] * 3)
    assert covered(forecast, targets, 0.9).tolist() == [False, True, False]
    expected = [2 * end + 20 * (3 - end), 2 * end, 2 * end + 20 * (2 - end)]
    assert interval_score(forecast, targets, 0.9).tolist() == approx(expected)


def test_the_nll_depends_on_the_units_of_the_targets() -> None:
    forecast, targets = normals(), torch.linspace(-1, 1, 6).double()
    loc, scale = forecast.components.loc, forecast.components.scale  # type: ignore[attr-defined]
    scaled = nll(Predictive(Normal(10 * loc, 10 * scale)), 10 * targets)
    assert torch.allclose(scaled, nll(forecast, targets) + math.log(10))


def test_pit_and_coverage_distinguish_calibrated_and_overconfident_forecasts() -> None:
    share, error = {}, {}
    for factor in (1.0, 0.5):
        forecast, targets = calibrated(factor=factor)
        values = pit(forecast, targets)
        share[factor] = covered(forecast, targets, 0.9).double().mean().item()
        error[factor] = kstest(values.numpy(), "uniform").pvalue, quantile_calibration_error(values)
    allowed = 3 * math.sqrt(0.9 * 0.1 / 2000)
    assert abs(share[1.0] - 0.9) < allowed
    assert share[0.5] < 0.9 - 5 * allowed
    assert error[1.0][0] > 0.01
    assert error[0.5][0] < 1e-6
    assert error[1.0][1] < 0.02 < error[0.5][1]


def test_the_pit_of_counts_is_uniform_and_depends_on_the_seed() -> None:
    forecast, targets = counts()
    values = pit(forecast, targets)
    assert kstest(values.numpy(), "uniform").pvalue > 0.01
    assert kstest(forecast.cdf(targets).numpy(), "uniform").pvalue < 1e-6  # not so without the draws
    assert torch.equal(values, pit(forecast, targets))
    assert not torch.equal(values, pit(forecast, targets, seed=1))


def test_number_scores_have_the_expected_values() -> None:
    forecast, targets = calibrated(200)
    found, terms = number_scores(forecast, targets, resamples=200), number_terms(forecast, targets)
    names = "nll rmse mae crps coverage width interval_score quantile_calibration_error"
    assert list(found) == names.split()
    errors = (targets - forecast.mean).square()
    again = bootstrap(lambda some: errors[some].mean().sqrt().item(), 200, resamples=200)
    assert (found["rmse"].value, found["rmse"].low) == approx((again.value, again.low), rel=1e-4)
    assert found["rmse"].error == approx(again.error, rel=0.05)
    assert found["mae"].value == approx((targets - forecast.quantile([0.5])[0]).abs().mean().item())
    assert found["crps"].value == approx(terms["crps"].mean().item())
    for each in found.values():
        assert 0 <= each.low <= each.high


def test_of_several_outputs_the_nll_is_joint_and_the_rest_are_means() -> None:
    forecast, targets = normals(4, 2), torch.zeros(4, 2)
    terms = number_terms(forecast, targets)
    assert torch.equal(terms["nll"], -forecast.log_prob(targets))
    assert torch.allclose(terms["crps"], crps(forecast, targets).mean(-1))
    assert list(number_scores(forecast, targets, resamples=2))


def test_selective_prediction_keeps_the_smallest_variance_first() -> None:
    scale = torch.tensor([1.0, 3.0, 1.0, 2.0]).double()
    forecast = Predictive(Normal(torch.zeros(1, 1, 4).double(), scale))
    found = error_coverage(forecast, torch.tensor([1.0, 5.0, 2.0, 3.0]))
    assert found.coverage.tolist() == [0.5, 0.75, 1.0]
    assert found.rmse.tolist() == approx([math.sqrt(s) for s in (5 / 2, 14 / 3, 39 / 4)])
    assert found.area == approx(0.5 * found.rmse[0].item() + 0.25 * (found.rmse[1] + found.rmse[2]).item())


@pytest.mark.usefixtures("unchecked")
def test_invalid_targets_are_rejected() -> None:
    with pytest.raises(InputError, match=r"must have shape \[6\], and have \[6, 1\]"):
        number_scores(normals(), torch.zeros(6, 1))
    with pytest.raises(InputError, match="targets that are not finite: 1 of 6"):
        crps(normals(), torch.tensor([0, 0, math.inf, 0, 0, 0]))
    with pytest.raises(InputError, match="the coverage of an interval must be between 0 and 1, and is 90"):
        width(normals(), 90)


def test_a_target_without_a_density_makes_the_nll_infinite_and_nothing_else() -> None:
    waiting = Predictive(Exponential(torch.ones(1, 2, 30).double()))
    targets = torch.linspace(0.1, 3, 30).double()
    targets[4] = -1.0
    found = number_scores(waiting, targets, resamples=200)
    assert found["nll"].value == found["nll"].high == math.inf
    assert math.isnan(found["nll"].error)
    with_it = bootstrap(lambda some: 0.0 if (some != 4).all() else math.inf, 30, 200)
    assert (found["nll"].low == math.inf) == (with_it.low == math.inf)
    assert found["rmse"].value == approx((targets - 1).square().mean().sqrt().item())
    assert all(math.isfinite(each.error) for name, each in found.items() if name != "nll")
    narrow = number_scores(Predictive(Normal(torch.zeros(1, 1, 30).double(), 1e-200)), targets, resamples=10)
    assert narrow["nll"].value == narrow["nll"].low == math.inf


def test_scores_of_one_example_have_no_error() -> None:
    scores = number_scores(Predictive(Normal(torch.zeros(1, 1, 1).double(), 1.0)), torch.tensor([2.0]), resamples=20)
    assert scores["mae"].value == approx(2)
    assert all(math.isnan(number) for found in scores.values() for number in (found.low, found.high, found.error))


def test_all_scores_use_the_same_resamples() -> None:
    forecast, targets = normals(40, 2), torch.randn(40, 2, generator=torch.Generator().manual_seed(3)).double()
    found, values = number_scores(forecast, targets, resamples=150, seed=5), pit(forecast, targets)
    terms = number_terms(forecast, targets)
    for name in ("crps", "coverage", "nll"):
        expected = bootstrap(lambda some, name=name: terms[name][some].mean().item(), 40, 150, 5)  # type: ignore[misc]
        assert (found[name].value, found[name].low, found[name].error) == approx(
            (expected.value, expected.low, expected.error)
        )
    expected = bootstrap(lambda some: quantile_calibration_error(values[some]), 40, 150, 5)
    assert found["quantile_calibration_error"].error == approx(expected.error)
    assert found["quantile_calibration_error"].high == approx(2 * expected.value - expected.low)
