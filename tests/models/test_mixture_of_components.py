"""The mixture of draws and members, against closed forms, sums written out and its own samples."""

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


class Counted(Student):
    """Says how often its cdf was asked for."""

    calls = 0

    def cdf(self, value: Tensor) -> Tensor:
        type(self).calls += 1
        return super().cdf(value)


def test_quantiles_of_student_t_take_few_values_of_its_cdf() -> None:
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
def test_quantiles_of_any_scales_take_few_values_of_the_cdf(kind: type[Normal], scales: tuple[float, float]) -> None:
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
def test_what_is_no_square_is_right_in_any_unit(unit: float) -> None:
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


def test_a_square_that_is_lost_is_said() -> None:
    mixed = Predictive(OwnNormal(torch.zeros(1, 1, 2).double(), torch.tensor([1e-200, 2.0], dtype=torch.float64)))
    assert mixed.variance.tolist() == [0.0, 4.0]  # to the nearest float
    for kind in (Normal, OwnNormal):
        small = Predictive(kind(torch.zeros(1, 1, 2).double(), 1e-170))
        for name in ("variance", "aleatoric"):
            with pytest.raises(
                InputError, match="the variance of noise as small as 1e-170 is lost in float64: take stddev"
            ):
                getattr(small, name)
    with pytest.raises(InputError, match="Normal gives no density of 2 of 2 targets: predict them in a larger unit"):
        Predictive(Normal(torch.zeros(1, 1, 2).double(), 1e-170)).log_prob(torch.zeros(2).double())


@pytest.mark.parametrize("level", [1e-4, 0.25, 0.5, 0.6, 0.999])
def test_a_quantile_is_the_least_number_with_enough_below(level: float) -> None:
    """Where the cdf is flat between components, has an edge, or ends within the numbers."""
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


def test_values_outside_the_support() -> None:
    both = Predictive(Uniform(torch.tensor([0.0, 2.0]).double().reshape(1, 2, 1), torch.tensor(4.0).double()))
    values = [-1.0, 1.0, 3.0, 5.0]
    assert [both.cdf(torch.tensor([x]).double()).item() for x in values] == approx([0, 0.125, 0.625, 1])
    densities = [both.log_prob(torch.tensor([x]).double()).exp().item() for x in values]
    assert densities == approx([0, 0.125, 0.375, 0])


def test_classes_have_no_mean_and_say_so() -> None:
    forecast = Predictive(Categorical(logits=torch.zeros(2, 2, 3, 4)))
    for name in ("mean", "variance", "aleatoric", "epistemic"):
        with pytest.raises(InputError, match="Categorical is of classes, which have no mean and no variance"):
            getattr(forecast, name)
    with pytest.raises(InputError, match="of classes"):
        forecast.quantile([0.5])
    assert forecast.log_prob(torch.tensor([0, 1, 3])).tolist() == approx([-math.log(4)] * 3)
    assert forecast.sample(2, torch.Generator()).shape == (2, 3)


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
    with pytest.raises(InputError, match="between 0 and 1, and is 1"):
        counts(1.0).quantile([0.5, 1])
    with pytest.raises(InputError, match="Poisson has no cdf"):
        Predictive(Poisson(torch.ones(1, 1, 1))).quantile([0.5])
