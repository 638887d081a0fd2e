"""The predictive mixture over draws and members, against closed forms, explicit sums and its own samples."""

import math
from unittest.mock import patch

import pytest
import torch
from scipy.stats import t as student
from torch import Tensor
from torch.distributions import Categorical, Exponential, Laplace, Normal, Poisson, StudentT, Uniform

from bayes_share.errors import InputError
from bayes_share.models.distributions import Normal as OwnNormal
from bayes_share.models.distributions import StudentT as Student
from bayes_share.models.predictive import Predictive

approx = pytest.approx


class Counts(Poisson):
    """Poisson with a cdf that is only defined for non-negative integers."""

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
    """A Poisson mixture for one example, with one draw per rate."""
    return Predictive(Counts(torch.tensor(rates).double().reshape(-1, 1, 1)))


def test_mean_and_variance_match_the_samples() -> None:
    forecast = normals(2)
    samples = forecast.sample(40_000, torch.Generator().manual_seed(0))
    assert torch.allclose(samples.mean(0), forecast.mean, atol=0.03)
    assert torch.allclose(samples.var(0), forecast.variance, rtol=0.04)
    loc, scale = forecast.components.loc, forecast.components.scale  # type: ignore[attr-defined]
    second = (loc.square() + scale.square()).mean((0, 1))
    assert torch.allclose(forecast.variance, second - loc.mean((0, 1)).square())


def test_log_prob_is_the_joint_density_of_all_targets_of_an_example() -> None:
    forecast, targets = normals(2), torch.randn(5, 2, dtype=torch.float64)
    each = forecast.components.log_prob(targets).exp()
    assert torch.allclose(forecast.log_prob(targets), each.prod(-1).mean((0, 1)).log())


def test_all_targets_of_a_sample_come_from_one_component() -> None:
    loc = torch.tensor([-100.0, 100.0]).double().reshape(2, 1, 1, 1).expand(2, 1, 3, 2)
    samples = Predictive(Normal(loc, 1.0)).sample(500, torch.Generator().manual_seed(0))
    signs = samples.sign()
    assert torch.equal(signs[..., 0], signs[..., 1])
    assert (signs[:, 0, 0] != signs[:, 1, 0]).any()  # examples have components of their own
    assert 200 < int((signs[:, 0, 0] > 0).sum()) < 300
    again = Predictive(Normal(loc, 1.0)).sample(500, torch.Generator().manual_seed(0))
    assert torch.equal(samples, again)


def test_quantiles_of_a_normal_match_scipy() -> None:
    forecast = Predictive(Normal(torch.full((1, 1, 1), 3.0).double(), 2.0))
    found = forecast.quantile([0.025, 0.5, 0.975]).flatten()
    assert found.tolist() == approx([3 - 2 * 1.959963984540054, 3, 3 + 2 * 1.959963984540054], rel=1e-12)


def test_quantiles_invert_the_cdf() -> None:
    forecast = normals(2)
    for level in (1e-6, 0.1, 0.5, 0.999):
        (values,) = forecast.quantile([level])
        assert torch.allclose(forecast.cdf(values), torch.tensor(level, dtype=torch.float64), rtol=1e-9)


def test_quantiles_where_the_scale_is_below_the_spacing_of_floats_at_the_mean() -> None:
    forecast = Predictive(Normal(torch.full((1, 1, 1), 1e20).double(), 1e-5))
    assert forecast.quantile([0.1, 0.9]).flatten().tolist() == approx([1e20, 1e20])


class Cauchy(StudentT):
    """Student's t with one degree of freedom and a cdf; it has neither mean nor variance."""

    def cdf(self, value: Tensor) -> Tensor:
        return 0.5 + ((value - self.loc) / self.scale).atan() / math.pi


def test_quantiles_of_a_distribution_without_a_mean() -> None:
    forecast = Predictive(Cauchy(1.0, torch.full((1, 1, 1), 5.0).double(), 2.0))
    assert forecast.quantile([0.25, 0.75]).flatten().tolist() == approx([3.0, 7.0])


def test_quantiles_of_counts_are_the_smallest_integers_whose_cdf_reaches_the_level() -> None:
    rates = torch.tensor([[0.01, 3.0, 200.0], [2.0, 5.0, 210.0]]).double()[:, None]  # small and large rates together
    forecast = Predictive(Counts(rates))
    ks = torch.arange(400.0).double()
    cdf = Counts(rates[:, 0, :, None]).log_prob(ks).exp().cumsum(-1).mean(0)
    for level in (0.01, 0.3, 0.5, 0.95):
        (found,) = forecast.quantile([level])
        assert found.tolist() == [int((row < level).sum()) for row in cdf]


class Counted(Student):
    """Student's t that counts the evaluations of its cdf."""

    calls = 0

    def cdf(self, value: Tensor) -> Tensor:
        type(self).calls += 1
        return super().cdf(value)


def test_quantiles_of_student_t_require_few_evaluations_of_the_cdf() -> None:
    source = torch.Generator().manual_seed(0)
    centre, loc, scale = (torch.randn(1, size, 300, generator=source).double() for size in (1, 8, 8))
    forecast = Predictive(Counted(torch.tensor(4.0).double(), centre + 0.4 * loc, (0.3 * scale).exp()))
    levels = (0.05, 0.5, 0.95)
    found = forecast.quantile(levels)
    assert Counted.calls <= 10 * len(levels)
    for level, values in zip(levels, found, strict=True):
        assert torch.allclose(forecast.cdf(values), torch.tensor(level, dtype=torch.float64), rtol=1e-13)
    one = Predictive(Student(torch.tensor(3.0).double(), torch.tensor([[[-7.0, 1e6]]]).double(), 1e-3))
    assert one.quantile([1e-6, 0.3, 0.9])[:, 0].tolist() == approx(
        (-7 + 1e-3 * student.ppf([1e-6, 0.3, 0.9], 3)).tolist(), abs=1e-10
    )


@pytest.mark.parametrize("scales", [(1e-200, 1e-200), (1e-200, 1.0), (1e-100, 1e-170), (1e200, 1.0), (1e-9, 1e-3)])
@pytest.mark.parametrize("kind", [Normal, OwnNormal])
def test_quantiles_at_extreme_scales_require_few_evaluations_of_the_cdf(
    kind: type[Normal], scales: tuple[float, float]
) -> None:
    levels, scale = (1e-6, 0.05, 0.3, 0.8, 0.999), torch.tensor(scales, dtype=torch.float64).reshape(1, 2, 1)
    for loc in (torch.zeros_like(scale), 5 * scale[:, :1], torch.arange(2.0).double().reshape(1, 2, 1)):
        forecast = Predictive(kind(loc, scale))
        with patch.object(Predictive, "_cdf", autospec=True, side_effect=Predictive._cdf) as evaluated:
            found = forecast.quantile(levels)
        assert evaluated.call_count <= 70 * len(levels)
        for level, values in zip(levels, found, strict=True):
            before = torch.nextafter(values, torch.full_like(values, -math.inf))
            assert forecast.cdf(before).item() < level + 1e-9
            assert forecast.cdf(values).item() > level - 1e-9


@pytest.mark.parametrize("unit", [1e-300, 1e-170, 1.0, 1e170, 1e300])
def test_stddev_density_and_quantiles_scale_with_the_unit(unit: float) -> None:
    loc, scale = torch.tensor([-1.0, 3.0]).double().reshape(1, 2, 1), torch.tensor([0.5, 2.0]).double().reshape(1, 2, 1)
    plain, there = Predictive(Normal(loc, scale)), Predictive(OwnNormal(unit * loc, unit * scale))
    target = torch.tensor([0.7]).double()
    assert there.stddev.item() == approx(unit * plain.variance.sqrt().item())
    assert there.log_prob(unit * target).item() == approx(plain.log_prob(target).item() - math.log(unit))
    assert there.quantile([0.1, 0.9]).flatten().tolist() == approx(
        (unit * plain.quantile([0.1, 0.9])).flatten().tolist()
    )
    heavy = Student(torch.tensor(3.0).double(), torch.zeros(1, 1, 1).double(), unit)
    assert Predictive(heavy).stddev.item() == approx(unit * math.sqrt(3))


def test_a_variance_that_underflows_raises() -> None:
    mixed = Predictive(OwnNormal(torch.zeros(1, 1, 2).double(), torch.tensor([1e-200, 2.0], dtype=torch.float64)))
    assert mixed.variance.tolist() == [0.0, 4.0]  # to the nearest float
    for kind in (Normal, OwnNormal):
        small = Predictive(kind(torch.zeros(1, 1, 2).double(), 1e-170))
        for name in ("variance", "aleatoric"):
            with pytest.raises(
                InputError, match="the variance underflows in float64, as the noise is at most 1e-170: use stddev"
            ):
                getattr(small, name)
    with pytest.raises(InputError, match="the density of Normal is NaN for 2 of 2 targets: use smaller units"):
        Predictive(Normal(torch.zeros(1, 1, 2).double(), 1e-170)).log_prob(torch.zeros(2).double())


@pytest.mark.parametrize("level", [1e-4, 0.25, 0.5, 0.6, 0.999])
def test_a_quantile_is_the_smallest_value_whose_cdf_reaches_the_level(level: float) -> None:
    """The cdf may be flat between components, have a kink, or have bounded support."""
    apart = torch.tensor([[-50.0, 50.0]]).double()[..., None]
    for forecast in (
        Predictive(Normal(apart, 0.1)),
        Predictive(Uniform(apart, apart + 1)),
        Predictive(Laplace(apart, 1)),
    ):
        (found,) = forecast.quantile([level])
        assert forecast.cdf(found).item() == approx(level, rel=1e-9)
        below = found - 1e-6 * (1 + found.abs())
        assert forecast.cdf(below).item() < level
    waits = Predictive(Exponential(torch.tensor([[0.1, 30.0]]).double()[..., None]))
    assert waits.cdf(waits.quantile([level])[0]).item() == approx(level)


def test_cdf_and_density_of_values_outside_the_support() -> None:
    both = Predictive(Uniform(torch.tensor([0.0, 2.0]).double().reshape(1, 2, 1), torch.tensor(4.0).double()))
    values = [-1.0, 1.0, 3.0, 5.0]
    assert [both.cdf(torch.tensor([x]).double()).item() for x in values] == approx([0, 0.125, 0.625, 1])
    densities = [both.log_prob(torch.tensor([x]).double()).exp().item() for x in values]
    assert densities == approx([0, 0.125, 0.375, 0])


def test_moments_and_quantiles_of_classes_raise() -> None:
    forecast = Predictive(Categorical(logits=torch.zeros(2, 2, 3, 4)))
    for name in ("mean", "variance", "aleatoric", "epistemic"):
        with pytest.raises(InputError, match="Categorical is a distribution of classes, which have no mean"):
            getattr(forecast, name)
    with pytest.raises(InputError, match="of classes"):
        forecast.quantile([0.5])
    assert forecast.log_prob(torch.tensor([0, 1, 3])).tolist() == approx([-math.log(4)] * 3)
    assert forecast.sample(2, torch.Generator()).shape == (2, 3)


def test_cdf_below_excludes_the_count_itself() -> None:
    forecast = counts(1.0, 4.0)
    zero = (math.exp(-1) + math.exp(-4)) / 2
    for value, expected in ((0.0, 0.0), (0.5, zero), (1.0, zero)):
        assert forecast.cdf_below(torch.tensor([value]).double()).item() == approx(expected)
    assert forecast.cdf(torch.tensor([-1.0]).double()).item() == 0
    assert forecast.cdf(torch.tensor([0.9]).double()).item() == approx(zero)


@pytest.mark.usefixtures("unchecked")
def test_invalid_components_targets_and_levels_raise() -> None:
    with pytest.raises(InputError, match=r"must have batch shape \[draw, member, example, \*output\]"):
        Predictive(Normal(torch.zeros(3), 1.0))
    with pytest.raises(InputError, match=r"must have shape \[1\], and have shape \[2\]"):
        counts(1.0).cdf(torch.zeros(2))
    with pytest.raises(InputError, match=r"1 of 1 targets are outside the support of Counts, the first is 0\.5"):
        counts(1.0).log_prob(torch.tensor([0.5]))
    with pytest.raises(InputError, match="1 of 1 targets are NaN"):
        counts(1.0).log_prob(torch.tensor([math.nan]))
    with pytest.raises(InputError, match="between 0 and 1, and is 1"):
        counts(1.0).quantile([0.5, 1])
    with pytest.raises(InputError, match="Poisson has no cdf"):
        Predictive(Poisson(torch.ones(1, 1, 1))).quantile([0.5])
