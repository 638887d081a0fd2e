"""Recalibration of forecasts with known miscalibration."""

import pytest
import torch
from forecasts import calibrated, counts, normals
from torch.distributions import Normal

from bayes_share.errors import InputError
from bayes_share.evaluation.numbers import (
    covered,
    crps,
    fit_pit_map,
    fit_variance_scaling,
    nll,
    number_scores,
    pit,
    quantile_calibration_error,
)
from bayes_share.models.predictive import Predictive

approx = pytest.approx


def test_the_factor_of_one_normal_is_the_rms_of_its_standardised_errors() -> None:
    z = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forecast = Predictive(Normal(torch.full((1, 1, 100), 3.0).double(), 0.5))
    found = fit_variance_scaling(forecast, 3 + 2 * z)
    assert found.factor == approx(4 * z.square().mean().sqrt().item(), rel=1e-5)
    assert torch.allclose(found(forecast).variance.sqrt(), torch.tensor(0.5 * found.factor, dtype=torch.float64))


def test_variance_scaling_recovers_a_known_factor() -> None:
    forecast, targets = calibrated(factor=0.4)
    scaling = fit_variance_scaling(forecast, targets)
    assert scaling.factor == approx(2.5, rel=0.05)
    fixed = scaling(forecast)
    assert torch.allclose(fixed.mean, forecast.mean)
    assert torch.allclose(fixed.variance, scaling.factor**2 * forecast.variance)
    assert nll(fixed, targets).mean() < nll(forecast, targets).mean()


def test_variance_scaling_finds_the_best_of_several_local_minima() -> None:
    rng = torch.Generator().manual_seed(1)
    loc, noise = (torch.randn(1, 5, 100, generator=rng, dtype=torch.float64) for _ in range(2))
    forecast, targets = Predictive(Normal(loc, 0.05)), (loc + 0.05 * noise)[0, 0]  # members far apart, one is right
    scaling = fit_variance_scaling(forecast, targets)
    assert scaling.factor == approx(1, abs=0.05)
    assert nll(scaling(forecast), targets).mean() < nll(forecast, targets).mean() + 1e-9


def test_isotonic_recalibration_improves_held_out_calibration() -> None:
    forecast, targets = calibrated(4000, factor=0.5)
    loc, scale = forecast.components.loc, forecast.components.scale  # type: ignore[attr-defined]
    first, second = (Predictive(Normal(loc[..., some], scale[..., some])) for some in (slice(2000), slice(2000, None)))
    fixed = fit_pit_map(first, targets[:2000])(second)
    rest = targets[2000:]
    assert quantile_calibration_error(pit(second, rest)) > 0.05
    assert quantile_calibration_error(pit(fixed, rest)) < 0.02
    assert abs(covered(fixed, rest).double().mean().item() - 0.9) < 0.04
    assert crps(fixed, rest).mean() < crps(second, rest).mean()


def test_quantiles_of_a_recalibrated_forecast_invert_its_cdf() -> None:
    forecast, targets = calibrated(100)
    fixed = fit_pit_map(forecast, targets)(forecast)
    for level in (0.05, 0.5, 0.9):
        (values,) = fixed.quantile([level])
        assert torch.allclose(fixed.cdf(values), torch.tensor(level, dtype=torch.float64))


def test_levels_beyond_the_last_distinct_pit_have_quantiles() -> None:
    """7 of 30 targets have the largest PIT below 1, and 3 have a PIT of 1: the level 0.95 is between them."""
    forecast = Predictive(Normal(torch.zeros(1, 1, 30).double(), 1.0))
    targets = torch.cat([torch.linspace(-1, 1, 20), torch.full((7,), 8.2), torch.full((3,), 1e3)]).double()
    low, high = fit_pit_map(forecast, targets)(forecast).quantile([0.05, 0.95])
    assert bool((high > 8).all())
    assert bool(high.isfinite().all())
    mirrored = fit_pit_map(forecast, -targets)(forecast).quantile([0.05, 0.95])
    assert torch.allclose(mirrored[1], -low, atol=0.2)
    assert bool(mirrored.isfinite().all())


def test_the_map_is_the_share_of_targets_at_or_below() -> None:
    forecast = Predictive(Normal(torch.zeros(1, 1, 24).double(), 1.0))
    fitted = fit_pit_map(forecast, torch.linspace(-1, 1, 24).double().repeat_interleave(1))
    assert fitted.forward(pit(forecast, torch.linspace(-1, 1, 24).double())).tolist() == approx(
        [rank / 25 for rank in range(1, 25)]
    )


def test_without_a_density_there_is_no_nll() -> None:
    forecast, targets = calibrated(100)
    fixed = fit_pit_map(forecast, targets)(forecast)
    found = number_scores(fixed, targets, resamples=10)
    assert "nll" not in found
    assert {"mae", "crps", "coverage"} <= set(found)
    with pytest.raises(
        InputError, match="a forecast recalibrated on the PIT has no density, and therefore no NLL: use"
    ):
        nll(fixed, targets)


def test_counts_can_be_recalibrated_by_the_pit_but_not_scaled() -> None:
    forecast, targets = counts(200)
    fixed = fit_pit_map(forecast, targets)(forecast)
    (median,) = fixed.quantile([0.5])
    assert torch.equal(median, median.round())
    with pytest.raises(InputError, match="such as Normal or StudentT, not Counts"):
        fit_variance_scaling(forecast, targets)
    with pytest.raises(InputError, match="recalibration requires at least 20 validation examples, not 6"):
        fit_pit_map(normals(), torch.zeros(6))
