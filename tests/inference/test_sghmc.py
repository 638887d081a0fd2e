"""SGHMC: the stationary distribution of its steps in a linear regression, and each part of a step."""

import itertools
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from regression import EACH, PROBLEMS, Posterior, Problem, chain_order, data, draws, misses_of_chain
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import SGHMC, SGLD, fit_tensors
from bayes_share.inference.step.drivers import step as one_step
from bayes_share.inference.step.drivers import take_step
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.priors import Hierarchical, standard_rules
from bayes_share.sharing import ensemble
from bayes_share.tensors.seeding import seeded

FRICTION, RATE, STEPS, KEPT = 0.4, 0.07, 1100, 1000
SAMPLER = SGHMC(learning_rate=RATE, factor_rate=1.0, friction=FRICTION, burn_in=1 / 11, keep=KEPT)


def stationary(problem: Problem) -> Posterior:
    """Return the law of the chain for its step size: variance ``1 / (h - η h² / (2 (2 - α)))`` for curvature h."""
    exact, scales = problem.exact(), problem._scales()
    curvature = torch.linalg.inv(exact.covariance / scales.unsqueeze(-1) / scales.unsqueeze(-2))
    step = RATE / len(data()[0])
    covariance = torch.linalg.inv(curvature - step * curvature @ curvature / (2 * (2 - FRICTION)))
    return Posterior(exact.mean, covariance * scales.unsqueeze(-1) * scales.unsqueeze(-2))


def chain(problem: Problem, algorithm: SGHMC = SAMPLER) -> Tensor:
    state = fit_tensors(algorithm, problem.build(problem.priors()), *data(), STEPS)
    return draws(partial(algorithm.draw, state), KEPT)[chain_order(KEPT)]


@EACH
def test_samples_have_the_stationary_distribution(problem: Problem, unchecked: None) -> None:
    expected = stationary(problem)
    assert ((expected.sd / problem.exact().sd - 1).abs() < 0.1).all()  # the effect of the step size
    state = SAMPLER.init(problem.build(problem.priors()), 10, 100)
    assert misses_of_chain(draws(partial(SAMPLER.draw, state), 50), expected)  # untrained
    prior = problem.prior()
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(KEPT, *prior.mean.shape, generator=generator, dtype=torch.float64)
    assert misses_of_chain(prior.mean + prior.sd * normal, expected)
    assert misses_of_chain(chain(problem), expected) == []


@pytest.mark.parametrize(
    ("problem", "temperature"),
    [(PROBLEMS[0], 0.0), (PROBLEMS[0], 2.0), pytest.param(PROBLEMS[3], 2.0, marks=pytest.mark.slow)],
)
def test_another_temperature_gives_another_distribution(problem: Problem, temperature: float, unchecked: None) -> None:
    assert misses_of_chain(chain(problem, replace(SAMPLER, temperature=temperature)), stationary(problem))


def test_temperature_0_is_sgd_with_momentum_and_the_prior_as_weight_decay() -> None:
    problem = PROBLEMS[0]
    priors = problem.priors()
    state = fit_tensors(SGHMC(learning_rate=0.02, friction=0.3, temperature=0.0), problem.build(priors), *data(), 7)
    with seeded(0, "init"):
        model = problem.build(priors)()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.7, weight_decay=1 / 10)
    for _ in range(7):
        optimizer.zero_grad()
        x, y = data()
        (-model.likelihood.log_lik(model(x), y[None]).mean()).backward()
        optimizer.step()
    torch.testing.assert_close(state.model.network.weight, model.network.weight, rtol=1e-12, atol=1e-12)


def positive(prior: Any, weight: float = 1.0) -> Model:
    layer = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(weight)
    return Model(layer, Gaussian(1.0), {"weight": prior}).double()


@pytest.mark.parametrize(
    "prior",
    [
        pytest.param(dist.LogNormal(0.0, 0.5), id="log-normal", marks=pytest.mark.slow),
        pytest.param(dist.HalfCauchy(1.0), id="half-Cauchy"),
    ],
)
def test_a_bounded_prior_is_sampled_in_unbounded_space(prior: Any, unchecked: None) -> None:
    x, y = torch.ones(4, 1, dtype=torch.float64), torch.full((4,), 0.8, dtype=torch.float64)
    algorithm = SGHMC(learning_rate=0.1, friction=0.4, burn_in=0.1, keep=2000)
    state = fit_tensors(algorithm, positive(prior, weight=6.0), x, y, 2000)
    found = torch.stack([sample["network.weight"].flatten() for sample in state.samples])
    assert (found > 0).all()
    grid = torch.linspace(1e-4, 12, 200_000, dtype=torch.float64)
    log_density = prior.log_prob(grid) - 0.5 * (0.8 - grid).square() * 4
    mass = (log_density - log_density.max()).exp()
    mean = (mass * grid).sum() / mass.sum()
    sd = ((mass * (grid - mean).square()).sum() / mass.sum()).sqrt()
    assert abs(found.mean() - mean) < 0.2 * sd  # the start is more than 10 sd away
    assert abs(found.std() / sd - 1) < 0.2


def test_a_chain_with_a_bounded_prior_resumes_bit_for_bit() -> None:
    x, y = torch.ones(4, 1, dtype=torch.float64), torch.full((4,), 0.8, dtype=torch.float64)
    algorithm = SGHMC(burn_in=0.0, keep=5)
    states = [algorithm.init(lambda: positive(dist.HalfCauchy(1.0)), 4, 10) for _ in range(2)]
    for step in range(10):
        if step == 4:
            states[1].load_state_dict(states[0].state_dict())
        for state in states if step >= 4 else states[:1]:
            with seeded(step):
                one_step(algorithm, state, (x, y))
    assert torch.equal(states[0].model.network.weight, states[1].model.network.weight)
    assert torch.equal(states[0].position.unbounded["network.weight"], states[1].position.unbounded["network.weight"])


def test_only_parameters_with_a_prior_get_noise_and_frozen_ones_stay_fixed() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    net[0].weight.requires_grad_(False)
    model = Model(net, Gaussian(0.5), {"0.bias": None, "2.bias": None}).double()
    x, y = data()
    hot = fit_tensors(SGHMC(learning_rate=1e-8, temperature=1e12, burn_in=0.0), model, x, y, 20)
    for name, parameter in hot.model.named_parameters():
        moved = (parameter - dict(model.named_parameters())[name]).abs().max()
        assert (moved > 1) == (name == "network.2.weight")  # noise
        assert (moved == 0) == (name == "network.0.weight")  # frozen
    assert set(hot.samples[0]) == {"network.0.bias", "network.2.weight", "network.2.bias", "likelihood.log_noise"}


def test_a_draw_has_the_parameters_and_norm_statistics_of_its_step() -> None:
    model = Model(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), Gaussian(1.0))
    x, y = (tensor.float() for tensor in data())
    algorithm = SGHMC(burn_in=0.5, keep=4)
    state = algorithm.init(lambda: model, 10, 8)
    for step in range(8):
        take_step(algorithm, state, (x, y), step)
        assert len(state.samples) == max(0, step - 3)
        now = model.eval()(x)
        model.train()
        torch.testing.assert_close(algorithm.draw(state, 0)(x), now.detach(), rtol=0, atol=0)
    means = [sample["network.1.running_mean"] for sample in state.samples]
    assert all(not torch.equal(one, other) for one, other in itertools.pairwise(means))
    assert not torch.equal(algorithm.draw(state, 0)(x), algorithm.draw(state, 1)(x))
    assert torch.equal(algorithm.draw(state, 0)(x), algorithm.draw(state, 4)(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"friction": 0.0}, "friction must be above 0 and at most 1, and is 0.0"),
        ({"friction": 1.5}, "friction must be above 0"),
        ({"temperature": -1.0}, "temperature must be finite and not negative, and is -1.0"),
        ({"burn_in": 1.0}, "burn_in must be a fraction of all steps, at least 0 and below 1, and is 1.0"),
        ({"keep": 0}, "keep must be at least 1, and is 0"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SGHMC(**options)


@pytest.mark.parametrize("algorithm", [SGHMC(), SGLD()])
def test_equal_members_are_refused_if_only_shared_parameters_have_noise(algorithm: SGHMC | SGLD) -> None:
    def model(latent: str) -> Model:
        network = ensemble(nn.Linear(3, 1), 2, "ones")
        return Model(network, Gaussian(1.0), standard_rules(network, latent, "normal", 1.0, "normal", 0.1, "one"))

    with pytest.raises(InputError, match="they would stay equal"):
        algorithm.init(lambda: model("base"), 4, 10)
    algorithm.init(lambda: model("factors"), 4, 10)
    replace(algorithm, feed="split").init(lambda: model("base"), 4, 10)


def test_models_that_cannot_be_sampled_are_refused() -> None:
    hierarchical = Hierarchical(dist.HalfCauchy(1.0), lambda scale, site: dist.Normal(0.0, scale))
    with pytest.raises(InputError, match="the prior of weight is hierarchical, which sghmc does not sample"):
        SGHMC().init(lambda: positive(hierarchical), 4, 10)
    with pytest.raises(InputError, match="no parameter of the model has a prior"):
        SGHMC().init(lambda: positive(None), 4, 10)
    with pytest.raises(InputError, match="the initial value of weight is outside the support of its prior"):
        SGHMC().init(lambda: positive(dist.LogNormal(0.0, 1.0), -1.0), 4, 10)
    equal = Model(ensemble(nn.Linear(3, 1), 2, "ones"), Gaussian(1.0))
    with pytest.raises(InputError, match="they would stay equal"):
        SGHMC(temperature=0.0).init(lambda: equal, 4, 10)
    SGHMC().init(lambda: equal, 4, 10)


@pytest.mark.parametrize(("algorithm", "friction"), [(SGHMC(friction=0.3), 0.3), (SGLD(exponent=0.0), 1.0)])
def test_the_noise_of_a_step_has_the_variance_of_each_learning_rate(algorithm: Any, friction: float) -> None:
    """2 α η temperature, with the step size η of the factors or of all other parameters; gradients are negligible."""
    rate, factor_rate, temperature, num_data = 1e-10, 0.2, 3e9, 50
    algorithm = replace(algorithm, learning_rate=rate, factor_rate=factor_rate, temperature=temperature)
    network = ensemble(nn.Linear(900, 700), 3, "normal").double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e-3)
    state = algorithm.init(lambda: Model(network, Gaussian(1.0)), num_data, 10)
    before = {name: value.clone() for name, value in state.model.named_parameters()}
    x = torch.randn(4, 900, dtype=torch.float64)
    with seeded(0):
        one_step(algorithm, state, (x, torch.zeros(4, 700, dtype=torch.float64)))
    for name, value in state.model.named_parameters():
        own_rate = rate * (factor_rate if name.endswith((".r", ".s")) else 1)
        expected = (2 * friction * own_rate * temperature / num_data) ** 0.5
        assert float((value - before[name]).detach().std()) == pytest.approx(expected, rel=0.1), name


@pytest.mark.parametrize("algorithm", [SGHMC, SGLD])
def test_the_joint_norm_of_all_gradients_is_clipped(algorithm: Any) -> None:
    """Without noise, the first step of a chain is the learning rate times the gradient."""
    x, y = data()
    moves = []
    for clip_norm in (None, 1e9, 0.05):
        torch.manual_seed(0)
        model = Model(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), Gaussian(0.5)).double()
        before = torch.cat([value.detach().flatten() for value in model.parameters()])
        of = algorithm(learning_rate=0.1, temperature=0.0, clip_norm=clip_norm)
        one_step(of, of.init(lambda model=model: model, 10, 10), (x, y))
        moves.append(torch.cat([value.detach().flatten() for value in model.parameters()]) - before)
    assert moves[0].norm() > 0.1 * 0.05 * 2
    torch.testing.assert_close(moves[1], moves[0])
    torch.testing.assert_close(moves[2], moves[0] * (0.1 * 0.05 / moves[0].norm()), rtol=1e-3, atol=0)
