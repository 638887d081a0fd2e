"""Gaussian, Student's t and Poisson likelihoods against SciPy, also for extreme outputs, and the cdfs."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.distributions import Bernoulli as BernoulliDistribution
from bayes_share.models.distributions import Normal as NormalDistribution
from bayes_share.models.distributions import Poisson as PoissonDistribution
from bayes_share.models.distributions import StudentT as StudentTDistribution
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.likelihoods.location_scale import SMALLEST_SCALE

SHAPE = (2, 6)  # member, batch
EPS = torch.finfo(torch.float32).eps


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


COUNTS = torch.tensor([[0, 1, 2, 5, 30, 200]] * 2)
RAW = normal(*SHAPE, 2, seed=2)
SD = (RAW.exp() + 1).log() + EPS  # softplus, written out
TWO = normal(*SHAPE, 2, seed=1)

DENSITIES: dict[str, tuple[Likelihood, Tensor, Tensor, Any]] = {
    "fixed noise": (Gaussian(0.7), TWO, TWO - 0.3, stats.norm(TWO, 0.7).logpdf(TWO - 0.3).sum(2)),
    "predicted noise": (
        Gaussian("predicted"),
        torch.cat([TWO, RAW], 2),
        TWO - 0.3,
        stats.norm(TWO, SD).logpdf(TWO - 0.3).sum(2),
    ),
    "predicted noise, one target": (
        Gaussian("predicted"),
        torch.stack([TWO[..., 0], RAW[..., 0]], 2),
        TWO[..., 1],
        stats.norm(TWO[..., 0], SD[..., 0]).logpdf(TWO[..., 1]),
    ),
    "student": (StudentT(3.5, 0.4), TWO, TWO - 9.0, stats.t(3.5, TWO, 0.4).logpdf(TWO - 9.0).sum(2)),
    "student, df near infinity": (StudentT(1e7), TWO, TWO - 2.0, 2 * stats.norm.logpdf(np.full(SHAPE, 2.0))),
    "student, predicted noise": (
        StudentT(2.5, "predicted"),
        torch.cat([TWO, RAW], 2),
        TWO - 0.3,
        stats.t(2.5, TWO, SD).logpdf(TWO - 0.3).sum(2),
    ),
    "poisson": (Poisson(), 3 * TWO[..., :1], COUNTS, stats.poisson((3 * TWO[..., 0]).exp()).logpmf(COUNTS)),
}
COUNT = 1_000_000
LOG_RATE = torch.tensor([[math.log(COUNT)]])  # float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", DENSITIES)
def test_log_lik_matches_scipy(name: str, dtype: torch.dtype) -> None:
    likelihood, outputs, targets, expected = DENSITIES[name]
    found = likelihood.log_lik(outputs.to(dtype), targets.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), torch.as_tensor(expected), rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("name", DENSITIES)
def test_distribution_of_the_arguments_matches_scipy(name: str) -> None:
    likelihood, outputs, targets, expected = DENSITIES[name]
    arguments = likelihood.arguments(outputs)
    shape = targets.shape
    assert {value.shape for value in arguments.values()} <= {shape, torch.Size([shape[0], 1, *shape[2:]])}
    further = {key: value[None] for key, value in arguments.items()}
    found = likelihood.of(further).log_prob(targets.double())
    assert found.shape == (1, *shape)
    torch.testing.assert_close(found[0].reshape(*SHAPE, -1).sum(2), torch.as_tensor(expected), rtol=1e-6, atol=1e-6)
    in_pyro = likelihood.distribution(outputs)
    assert in_pyro.batch_shape == SHAPE
    torch.testing.assert_close(in_pyro.log_prob(targets.double()), torch.as_tensor(expected), rtol=1e-6, atol=1e-6)
    assert in_pyro.expand_by([3]).sample().shape == (3, *shape)


def test_large_counts_have_an_accurate_probability_and_divergence_in_float32() -> None:
    rate, other = LOG_RATE.double().exp().item(), (LOG_RATE + 1e-3).double().exp().item()
    found = Poisson().log_lik(LOG_RATE, torch.tensor([[COUNT]]))
    assert found.item() == pytest.approx(stats.poisson.logpmf(COUNT, rate), rel=1e-6)
    of_distribution = Poisson().distribution(LOG_RATE).log_prob(torch.tensor([[COUNT]]))  # which Pyro samples with
    assert of_distribution.item() == pytest.approx(found.item(), abs=1e-3)
    kl = Poisson().divergence(LOG_RATE, Poisson(), LOG_RATE + 1e-3, torch.zeros(1, 1), 1.0)
    assert (found.dtype, kl.dtype) == (torch.float32, torch.float32)
    assert kl.item() == pytest.approx(other * math.log(other / rate) - other + rate, rel=1e-6)


VALUES = torch.tensor([-1e3, -2.5, -1.0, -0.5, 0.0, 0.3, 1.0, 4.0, 9.7, 1e4], dtype=torch.float64)
RATES = torch.tensor([1e-9, 0.3, 4.0, 1e4], dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (NormalDistribution(torch.tensor(4.0).double(), 0.5), stats.norm(4, 0.5)),
        (PoissonDistribution(RATES), stats.poisson(RATES.numpy())),
        (BernoulliDistribution(torch.tensor(0.3).double()), stats.bernoulli(float(torch.tensor(0.3)))),
        (
            StudentTDistribution(torch.tensor([[0.5], [3.0], [1e6]]).double(), 1.0, 2.0),
            stats.t(np.array([[0.5], [3.0], [1e6]]), 1.0, 2.0),
        ),
    ],
    ids=["normal", "poisson", "bernoulli", "student"],
)
def test_cdfs_match_scipy(distribution: Any, expected: Any) -> None:
    found = distribution.cdf(VALUES)
    torch.testing.assert_close(found, torch.as_tensor(expected.cdf(VALUES)), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("likelihood", [Gaussian("predicted"), StudentT(3.0, "predicted")], ids=["normal", "student"])
def test_predicted_noise_is_positive_and_finite_for_extreme_outputs(likelihood: Likelihood, dtype: torch.dtype) -> None:
    ends = torch.tensor([-3e38, -1e4, -100.0, 0.0, 100.0, 1e4, 3e38], dtype=dtype)
    outputs = torch.stack([torch.zeros_like(ends), ends], -1)[None].requires_grad_()
    scale = likelihood.arguments(outputs)["scale"].detach()
    assert scale.dtype == torch.float32
    assert bool((scale >= SMALLEST_SCALE).all() and scale.isfinite().all())
    assert float(scale[0, 1]) == pytest.approx(SMALLEST_SCALE)
    assert float(scale[0, 5]) == pytest.approx(1e4, rel=0.01)
    found = likelihood.log_lik(outputs, torch.ones(1, 7, dtype=dtype))
    assert bool(found.isfinite().all())
    found.sum().backward()
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())


def test_poisson_rates_are_positive_and_finite_for_extreme_outputs() -> None:
    rate = Poisson().arguments(torch.tensor([[-1e4, 0.0, 1e4]]))["rate"]
    assert bool((rate > 0).all() and rate.isfinite().all())
    assert Poisson().log_lik(torch.tensor([[-1e4]]), torch.tensor([[3]])).item() == pytest.approx(-3e4, rel=1e-3)


OUTPUTS = torch.cat([normal(*SHAPE, 2), 2 * normal(*SHAPE, 2, seed=3)], 2)
TARGETS = normal(*SHAPE, 2, seed=4)


def test_loss_with_beta_0_is_the_negative_log_likelihood() -> None:
    losses, log_lik = Gaussian("predicted", beta=0.0).losses(OUTPUTS, TARGETS)
    assert torch.equal(losses, -log_lik)
    nearly, _ = Gaussian("predicted", beta=1e-12).losses(OUTPUTS, TARGETS)
    torch.testing.assert_close(nearly, losses, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_gradients_of_beta_nll_match_the_paper(beta: float) -> None:
    """Equations 6 and 7 of arXiv 2203.09168. With beta 1 the mean has the gradient of half the squared error."""
    outputs = OUTPUTS.clone().requires_grad_()
    likelihood = Gaussian("predicted", beta=beta)
    losses, log_lik = likelihood.losses(outputs, TARGETS)
    torch.testing.assert_close(log_lik, Gaussian("predicted").log_lik(OUTPUTS, TARGETS))
    losses.sum().backward()
    loc, raw = OUTPUTS.chunk(2, 2)
    variance = torch.nn.functional.softplus(raw).square()
    of_loc = (loc - TARGETS) * variance ** (beta - 1)
    of_variance = (variance - (TARGETS - loc).square()) / (2 * variance ** (2 - beta))
    of_raw = of_variance * 2 * variance.sqrt() * raw.sigmoid()
    assert outputs.grad is not None
    torch.testing.assert_close(outputs.grad, torch.cat([of_loc, of_raw], 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "likelihood",
    [Gaussian(0.6), Gaussian("predicted"), StudentT(5.0, 0.6), StudentT(5.0, "predicted")],
    ids=["normal", "normal, predicted", "student", "student, predicted"],
)
def test_information_is_the_mean_outer_product_of_gradients(likelihood: Likelihood) -> None:
    outputs = torch.tensor([[[0.3, -0.4, 0.5, 1.2]]], dtype=torch.float64)
    found = likelihood.information(outputs)
    assert found is not None
    count = 100_000
    many = outputs.expand(1, count, 4).clone().requires_grad_()
    samples = likelihood.of(likelihood.arguments(many)).sample()
    (gradient,) = torch.autograd.grad(likelihood.log_lik(many, samples).sum(), many)
    products = gradient[0, :, :, None] * gradient[0, :, None, :]
    error = products.std(0) / math.sqrt(count)
    assert bool(((products.mean(0) - found[0, 0]).abs() <= 5 * error + 1e-12).all())


def test_divergences_match_torch() -> None:
    ours, theirs = normal(*SHAPE, 4, seed=5), normal(*SHAPE, 4, seed=6)
    for likelihood in (Gaussian("predicted"), Poisson()):
        expected = torch.distributions.kl_divergence(likelihood.distribution(theirs), likelihood.distribution(ours))
        found = likelihood.divergence(ours, likelihood, theirs, ours, 4.0)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(InputError, match='both teacher and student must have noise="predicted", or neither'):
        Gaussian("predicted").divergence(ours, Gaussian(), theirs, ours, 1.0)


REFUSED: dict[str, tuple[Any, str]] = {
    "beta without predicted noise": (lambda: Gaussian(beta=0.5), 'beta=0.5 .* requires noise="predicted"'),
    "beta above 1": (lambda: Gaussian("predicted", beta=2), "beta must be a number from 0 to 1, not 2"),
    "predicted and learned": (
        lambda: StudentT(3.0, "predicted", learned=True),
        "learned=True learns one noise",
    ),
    "misspelled noise": (lambda: Gaussian("predict"), "the noise must be a positive standard deviation, not predict"),  # type: ignore[arg-type]
    "df of 2": (lambda: StudentT(2.0), "df must be a finite number above 2, so that the variance is finite, not 2.0"),
    "df of NaN": (lambda: StudentT(math.nan), "df must be a finite number above 2"),
    "odd number of outputs": (
        lambda: Gaussian("predicted").prepare(torch.zeros(4), torch.zeros(1, 4, 3)),
        r"two outputs per target .* outputs of an example have shape \[3\]",
    ),
    "no output axis": (lambda: Gaussian("predicted").prepare(torch.zeros(4), torch.zeros(1, 4)), r"shape \[\]$"),
    "as many targets as outputs": (
        lambda: Gaussian("predicted").prepare(torch.zeros(4, 2), torch.zeros(1, 4, 2)),
        r"have shape \[2\], and must have shape \[\]",
    ),
    "negative count": (
        lambda: Poisson().prepare(torch.tensor([3, -1]), torch.zeros(1, 2, 1)),
        "the targets must be non-negative counts, and one is -1",
    ),
    "fractional count": (
        lambda: Poisson().prepare(torch.tensor([3, 0.5]), torch.zeros(1, 2, 1)),
        "must be integers, and one is 0.5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_and_targets_raise_a_one_line_message(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_learned_degrees_of_freedom_have_a_gradient_and_stay_above_2() -> None:
    likelihood = StudentT(4.0, 0.5, learned=True, learned_df=True).double()
    assert sorted(name for name, _ in likelihood.named_parameters()) == ["log_excess", "log_noise"]
    likelihood.log_lik(TWO, TARGETS).sum().backward()
    step = 1e-5

    def at(df: float) -> float:
        return float(stats.t(df, TWO, 0.5).logpdf(TARGETS).sum())

    expected = (at(4 + step) - at(4 - step)) / (2 * step) * 2  # the derivative of df in log(df - 2)
    assert likelihood.log_excess.grad is not None
    assert float(likelihood.log_excess.grad) == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        likelihood.log_excess.fill_(-20.0)
    assert bool(likelihood.of(likelihood.arguments(TWO)).variance.isfinite().all())


def test_names_of_likelihoods_in_saved_predictions() -> None:
    class Own(Gaussian):
        pass

    kinds = Categorical, Bernoulli, Gaussian, StudentT, Poisson, Own
    assert [kind.name for kind in kinds] == ["categorical", "bernoulli", "normal", "student_t", "poisson", "Own"]
