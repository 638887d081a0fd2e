"""IVON with user-defined normal priors, which have a mean and a scale for each parameter."""

from functools import partial
from typing import Any

import pytest
import torch
from explicit import close, perturb
from pyro import distributions as dist
from regression import NOISE, PROBLEMS, Posterior, data, draws, misses
from states import differences, through_bytes
from test_ivon import NUM_DATA as NUM_IN_STEPS
from test_ivon import batch, builder, steps
from torch import nn
from torch.distributions import kl_divergence

from bayes_share.errors import InputError
from bayes_share.inference import IVON, Build, fit_tensors
from bayes_share.inference.algorithm import Batch
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.priors import Hierarchical, around
from bayes_share.sharing import ensemble

LOC = torch.tensor([[1.0, -1.0, 2.0]], dtype=torch.float64)
SCALE = torch.tensor([[0.2, 1.0, 0.5]], dtype=torch.float64)

# Fast, with little noise at the end. The decay has no effect, since all trained parameters have priors.
FAST = IVON(
    learning_rate=0.1,
    factor_rate=1.0,
    weight_decay=7.0,
    factor_decay=7.0,
    hess_init=5.0,
    factor_hess_init=5.0,
    beta2=0.995,
)


def with_priors(build: Build, priors: dict[Any, Any]) -> Build:
    def built() -> Model:
        model = build()
        model.priors = priors
        return model

    return built


@pytest.mark.usefixtures("unchecked")
def test_with_a_prior_for_each_weight_the_mean_field_posterior_is_found() -> None:
    x, y = data()
    precision = x.T @ x / NOISE**2 + (SCALE[0] ** -2).diag()
    mean = torch.linalg.solve(precision, x.T @ y / NOISE**2 + LOC[0] / SCALE[0] ** 2)
    expected = Posterior(mean[None], (1 / precision.diagonal()).diag()[None])
    model = Model(nn.Linear(3, 1, bias=False), Gaussian(NOISE), {"weight": dist.Normal(LOC, SCALE)}).double()
    state = fit_tensors(FAST, model, x, y, num_steps=700)
    found = draws(partial(FAST.draw, state), 800)
    assert misses(found, expected) == []
    by_closed_form = [
        kl_divergence(dist.Normal(mean[i], precision[i, i] ** -0.5), dist.Normal(LOC[0, i], SCALE[0, i]))
        for i in range(3)
    ]
    assert FAST._kl(state, x).item() == pytest.approx(float(sum(by_closed_form)), rel=0.2)


@pytest.mark.usefixtures("unchecked")
def test_every_member_has_the_posterior_of_a_single_network() -> None:
    """Three members with unknown r and known weight and s. The prior N(1, 0.7²) replaces the decay, which is wrong."""
    problem = PROBLEMS[-1]
    state = fit_tensors(FAST, problem.build(problem.priors()), *data(), num_steps=700)
    assert misses(draws(partial(FAST.draw, state), 800), problem.mean_field()) == []


def without_norm(size: int) -> Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    return Model(perturb(ensemble(net, size, "normal") if size > 1 else net)).double()


@pytest.mark.parametrize("ess", [None, 1000.0])
@pytest.mark.parametrize("size", [1, 3])
def test_priors_equal_to_the_weight_decay_give_the_same_steps(size: int, ess: float | None) -> None:
    algorithm = IVON(weight_decay=0.04, factor_decay=0.25, beta2=0.9, ess=ess)
    other = IVON(weight_decay=5.0, factor_decay=6.0, beta2=0.9, ess=ess)
    of_loss = NUM_IN_STEPS if ess is None else ess
    sd, factor_sd = (torch.tensor((of_loss * decay) ** -0.5, dtype=torch.float64) for decay in (0.04, 0.25))
    zero = torch.zeros((), dtype=torch.float64)
    rules = {role: dist.Normal(zero, sd) for role in ("weight", "bias")}
    if size > 1:
        rules["factor"] = around("sign", float(factor_sd))
    expected, infos = steps(algorithm, lambda: without_norm(size))
    found, found_infos = steps(other, with_priors(lambda: without_norm(size), rules))
    for p, q in zip(expected.model.parameters(), found.model.parameters(), strict=True):
        close(q.detach(), p.detach(), 1e-6)  # the scale of the factors' prior is rounded to float32
        close(found.optimizer.sd(q), expected.optimizer.sd(p), 1e-6)
    for info, found_info in zip(infos, found_infos, strict=True):
        close(found_info.kl, info.kl, 1e-6)


def test_the_divergence_is_from_the_priors_and_ignores_flat_priors() -> None:
    rules = {"0.bias": dist.Normal(LOC[0, :1], SCALE[0, 1:2]), "3.bias": None}
    state, _ = steps(IVON(weight_decay=0.0, factor_decay=0.0, beta2=0.9), with_priors(builder(3), rules))
    bias = state.model.network.network[0].bias
    prior = dist.Normal(LOC[0, 0], SCALE[0, 1])
    expected = kl_divergence(dist.Normal(bias.detach(), state.optimizer.sd(bias)), prior).sum() / 3
    algorithm = IVON(weight_decay=0.0, factor_decay=0.0, beta2=0.9)
    close(algorithm.gradient(state, Batch(*batch())).kl, expected, 1e-10)
    flat = state.model.network.network[3].bias
    close(state.optimizer.sd(flat), (3 * NUM_IN_STEPS * state.optimizer.state[flat]["hess"]).rsqrt(), 1e-12)


def test_a_state_with_priors_is_saved_and_loaded() -> None:
    build = with_priors(builder(3), {"factor": around("sign", 0.3), "0.bias": dist.Normal(LOC[0, 0], SCALE[0, 1])})
    state, _ = steps(IVON(beta2=0.9), build)
    other, _ = steps(IVON(beta2=0.9), build, 1)
    other.load_state_dict(through_bytes(state.state_dict()))
    assert differences(state.state_dict(), other.state_dict()) == []
    assert float(IVON()._kl(other, torch.zeros(()))) == float(IVON()._kl(state, torch.zeros(())))


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (dist.Laplace(0.0, 1.0), "ivon requires normal priors, and the prior of bias is a Laplace"),
        (dist.LogNormal(0.0, 1.0), "the prior of bias is a LogNormal"),
        (
            Hierarchical(dist.HalfNormal(1.0), lambda scale, site: dist.Normal(0.0, scale)),
            "the prior of bias is hierarchical",
        ),
    ],
)
def test_priors_that_are_not_normal_are_refused(prior: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        IVON().init(lambda: Model(nn.Linear(2, 1), priors={"bias": prior}), 10, 10)
