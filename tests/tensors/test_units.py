"""Units of targets: likelihoods of standardised outputs, whose other quantities stay in the targets' units."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, SVI, LastLayerLaplace, fit_tensors, predictive
from bayes_share.models.likelihoods import Gaussian, StudentT
from bayes_share.models.likelihoods.location_scale import LocationScale
from bayes_share.models.model import Model
from bayes_share.tensors.units import Units

UNITS = Units(torch.tensor(1e9, dtype=torch.float64), torch.tensor(20.0, dtype=torch.float64))
OUTPUTS = torch.tensor([[[0.5, -1.0], [-2.0, 3.0]]])
TARGETS = torch.tensor([[1e9 + 3.25, 1e9 - 51.0]], dtype=torch.float64)
KINDS: dict[str, Callable[[], LocationScale]] = {
    "known": lambda: Gaussian(7.0),
    "learned": lambda: Gaussian(0.5, learned=True),
    "predicted": lambda: Gaussian("predicted"),
    "student": lambda: StudentT(3.0, "predicted"),
}


def scales(kind: str) -> Tensor:
    """The scale of each prediction, in the targets' units."""
    known = {"known": torch.tensor(7.0), "learned": torch.tensor(10.0)}
    return known[kind] if kind in known else 20 * nn.functional.softplus(OUTPUTS[..., 1].double())


@pytest.mark.parametrize("kind", KINDS)
def test_density_and_arguments_are_in_the_targets_units(kind: str) -> None:
    likelihood = KINDS[kind]().with_units(UNITS)
    outputs = OUTPUTS if likelihood.is_predicted else OUTPUTS[..., :1]
    loc = 1e9 + 20 * OUTPUTS[..., 0].double()
    wanted = (stats.t(3.0) if kind == "student" else stats.norm).logpdf(((TARGETS - loc) / scales(kind)).numpy())
    expected = torch.from_numpy(wanted) - scales(kind).double().log()
    assert torch.allclose(likelihood.log_lik(outputs, TARGETS).double(), expected, rtol=1e-5)
    assert torch.allclose(likelihood.of(likelihood.arguments(outputs)).log_prob(TARGETS), expected, rtol=1e-5)
    assert torch.allclose(likelihood.distribution(outputs).log_prob(TARGETS), expected, rtol=1e-5)
    assert torch.equal(likelihood.arguments(outputs)["loc"], loc)


@pytest.mark.parametrize("kind", KINDS)
def test_fisher_information_is_in_units_of_the_outputs(kind: str) -> None:
    likelihood, plain = KINDS[kind]().with_units(UNITS), KINDS[kind]()
    outputs = OUTPUTS if likelihood.is_predicted else OUTPUTS[..., :1]
    if kind == "known":
        plain = Gaussian(7 / 20)
    assert torch.allclose(likelihood.information(outputs), plain.information(outputs))


def test_beta_nll_weights_by_standardised_variances() -> None:
    plain = Gaussian("predicted", beta=0.5)
    standardised = ((TARGETS - 1e9) / 20).float()
    losses, log_lik = plain.with_units(UNITS).losses(OUTPUTS, TARGETS)
    expected, plainly = plain.losses(OUTPUTS, standardised)
    weights = nn.functional.softplus(OUTPUTS[..., 1])
    assert torch.allclose(losses, expected + weights * torch.tensor(20.0).log(), rtol=1e-5)
    assert torch.allclose(log_lik, plainly - torch.tensor(20.0).log(), rtol=1e-5)


def test_each_of_several_targets_has_its_own_units() -> None:
    targets = torch.tensor([[1.0, 100.0, 5.0], [3.0, 500.0, 5.0]])
    units = Units.of(targets)
    assert units.centre.tolist() == [2.0, 300.0, 5.0]
    assert units.scale.tolist() == [1.0, 200.0, 1.0]
    found = Gaussian(2.0).with_units(units).arguments(torch.ones(1, 2, 3))
    assert found["loc"][0, 0].tolist() == [3.0, 500.0, 6.0]
    assert torch.allclose(found["scale"].float(), torch.tensor(2.0))
    assert Gaussian(0.5, learned=True).with_units(units).arguments(torch.ones(1, 2, 3))["scale"].tolist() == [
        [[0.5, 100.0, 0.5]]
    ]


def test_noise_is_printed_in_the_targets_units() -> None:
    assert repr(Gaussian(7.0).with_units(UNITS)) == "Gaussian(noise=7, learned=False, centre=1e+09, unit=20)"


@pytest.mark.parametrize("unit", [1e-300, 1e-170, 1e170, 1e300])
def test_units_of_values_whose_squares_overflow_or_underflow(unit: float) -> None:
    found = Units.of(unit * torch.tensor([1.0, 3.0], dtype=torch.float64))
    assert (found.centre.item(), found.scale.item()) == pytest.approx((2 * unit, unit))


def test_setting_units_twice_raises() -> None:
    with pytest.raises(InputError, match="already has units"):
        Gaussian().with_units(UNITS).with_units(UNITS)


@pytest.mark.parametrize(("centre", "scale"), [(0.0, 0.0), (0.0, -1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_invalid_units_raise(centre: float, scale: float) -> None:
    with pytest.raises(InputError, match="the scale must be positive and the centre finite:"):
        Units(torch.tensor(centre, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))


@pytest.mark.parametrize(
    "algorithm", [MAP(learning_rate=0.02), SVI(learning_rate=0.02), LastLayerLaplace(MAP(learning_rate=0.02))]
)
def test_a_linear_function_far_from_0_is_learned(algorithm: MAP | SVI | LastLayerLaplace) -> None:
    x = torch.linspace(-1, 1, 40)[:, None]
    y = 1e6 + 300 * x[:, 0].double() + 30 * torch.randn(40, dtype=torch.float64)
    likelihood = Gaussian(learned=True).with_units(Units.of(y))
    state = fit_tensors(algorithm, Model(nn.Linear(1, 1), likelihood), x, y, 600)
    found = predictive(algorithm, state, x, 20)
    assert (found.mean - y).square().mean().sqrt() < 45
    assert 20 < found.variance.sqrt().mean() < 60
