"""Point estimates with user-defined priors, against modes in closed form or from a grid search."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close, perturb
from pyro import distributions as dist
from regression import NOISE, NUM_DATA, PROBLEMS, data, draws
from states import leaves
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import (
    MAP,
    SGHMC,
    SGLD,
    SVI,
    SWAG,
    DeepEnsemble,
    Inference,
    LastLayerLaplace,
    MCDropout,
    fit_tensors,
)
from bayes_share.inference.step.drivers import step
from bayes_share.inference.step.named_priors import NamedPriors
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.priors import Hierarchical, around
from bayes_share.sharing import ensemble

OPTIMIZERS = {
    "sgd": MAP(learning_rate=0.05, weight_decay=0.7, factor_decay=0.9),
    "adam": MAP(optimizer="adam", learning_rate=0.1, weight_decay=0.7, factor_decay=0.9),
    "adamw": MAP(optimizer="adamw", learning_rate=0.1, weight_decay=0.7, factor_decay=0.9),
}
STEPS = 300
EACH = pytest.mark.parametrize("optimizer", OPTIMIZERS)
LOC = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)
SCALE = torch.tensor([[0.3, 1.0, 0.6]], dtype=torch.float64)

pytestmark = pytest.mark.usefixtures("unchecked")  # annotation checks take most of the time of such small steps


def regression(priors: dict[Any, Any]) -> Model:
    torch.manual_seed(0)
    return Model(nn.Linear(3, 1), Gaussian(NOISE), priors).double()


@EACH
def test_normal_priors_give_ridge_regression_and_a_flat_prior_no_penalty(optimizer: str) -> None:
    """Each weight has its own prior mean and scale; the bias has neither prior nor decay."""
    model = regression({"weight": dist.Normal(LOC, SCALE), "bias": None})
    found = fit_tensors(OPTIMIZERS[optimizer], model, *data(), num_steps=STEPS).model.network
    x, y = data()
    columns = torch.cat([x, torch.ones(NUM_DATA, 1, dtype=torch.float64)], 1)
    precision = torch.cat([SCALE[0] ** -2, torch.zeros(1, dtype=torch.float64)])
    right = columns.T @ y / NOISE**2 + precision * torch.cat([LOC[0], torch.zeros(1, dtype=torch.float64)])
    expected = torch.linalg.solve(columns.T @ columns / NOISE**2 + precision.diag(), right)
    close(torch.cat([found.weight[0], found.bias]).detach(), expected, 1e-4)


def mode(log_density: Callable[[Tensor], Tensor]) -> float:
    """Return the argmax of a function between -5 and 5, on a grid of a million points."""
    grid = torch.linspace(-5, 5, 1_000_001, dtype=torch.float64)
    return float(grid[log_density(grid).argmax()])


HEAVY_TAILS = {
    "a mixture": dist.MixtureSameFamily(
        dist.Categorical(torch.ones(2)), dist.Normal(torch.tensor([0.3, 0.3]), torch.tensor([0.1, 1.0]))
    ),
    "laplace": dist.Laplace(torch.tensor(0.3), torch.tensor(0.3)),
    "laplace, at its kink": dist.Laplace(torch.tensor(0.3), torch.tensor(0.02)),
    "cauchy": dist.Cauchy(torch.tensor(0.3), torch.tensor(0.3)),
    "student-t": dist.StudentT(torch.tensor(3.0), torch.tensor(0.3), torch.tensor(0.3)),
}


@EACH
@pytest.mark.parametrize("name", HEAVY_TAILS)
def test_the_mode_under_heavy_tailed_priors_is_that_of_a_grid_search(optimizer: str, name: str) -> None:
    """The weight is the unknown mean of 8 targets with noise 1."""
    y = 1.5 + torch.randn(8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = HEAVY_TAILS[name]
    net = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(net.weight, 0.9)
    model = Model(net, Gaussian(1.0), {"weight": prior}).double()
    x = torch.ones(8, 1, dtype=torch.float64)
    found = fit_tensors(OPTIMIZERS[optimizer], model, x, y, num_steps=STEPS).model.network.weight.item()
    sum_y, sum_y2 = float(y.sum()), float(y.square().sum())
    expected = mode(lambda w: prior.log_prob(w) - 0.5 * (sum_y2 - 2 * w * sum_y + 8 * w * w))
    assert (expected == pytest.approx(0.3)) == ("kink" in name)
    assert found == pytest.approx(expected, abs=1e-3)


@EACH
def test_every_member_has_the_mode_of_a_single_network(optimizer: str) -> None:
    """Three members with known weight and s, and unknown r with normal priors around 1."""
    problem = PROBLEMS[-1]
    state = fit_tensors(OPTIMIZERS[optimizer], problem.build(problem.priors()), *data(), num_steps=STEPS)
    found = draws(lambda sample: OPTIMIZERS[optimizer].draw(state, sample), 1)[0]
    close(found, problem.exact().mean, 1e-3)


def test_each_member_has_the_mode_of_its_own_data_under_a_laplace_prior() -> None:
    """The biases of three members, each fed its own part of the targets: their mean, soft-thresholded by the prior."""
    y = torch.tensor([2.0, 2.4, 1.0, 1.2, 0.1, -0.3], dtype=torch.float64)
    net = ensemble(nn.Linear(1, 1), 3, "ones", strategy="tile")
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    model = Model(net, Gaussian(1.0), {"bias": dist.Laplace(torch.tensor(0.0), torch.tensor(0.5))}).double()
    algorithm = MAP(learning_rate=0.1, weight_decay=0.7, feed="split")
    state = algorithm.init(lambda: model, 2, STEPS)  # num_data is 2, the number of examples of each member
    for _ in range(STEPS):
        step(algorithm, state, (torch.zeros(6, 1, dtype=torch.float64), y))
    pulled = y.view(3, 2).sum(1) - y.view(3, 2).sum(1).sign() * 2
    expected = torch.where(y.view(3, 2).sum(1).abs() > 2, pulled / 2, 0.0)
    close(state.model.network.network.bias.detach()[:, 0], expected, 1e-3)
    assert expected.tolist() == pytest.approx([1.2, 0.1, 0.0])


@EACH
def test_a_prior_on_the_learned_noise_of_the_likelihood_is_used(optimizer: str) -> None:
    """Compare with the mode of ``log σ`` under N(0, 0.1²), with all other parameters known."""
    y = 3 * torch.randn(20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    net = nn.Linear(1, 1)
    net.requires_grad_(False)
    prior = dist.Normal(torch.tensor(0.0), torch.tensor(0.1))
    model = Model(net, Gaussian(1.0, learned=True), {"likelihood": prior}).double()
    x = torch.zeros(20, 1, dtype=torch.float64)
    nn.init.zeros_(model.network.bias)
    state = fit_tensors(OPTIMIZERS[optimizer], model, x, y, num_steps=STEPS)
    squares = float(y.square().sum())
    expected = mode(lambda log_noise: prior.log_prob(log_noise) - 20 * log_noise - squares * (-2 * log_noise).exp() / 2)
    assert state.model.likelihood.log_noise.item() == pytest.approx(expected, abs=1e-3)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def precise(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64)


PRIORS = {"0.weight": dist.Cauchy(precise(0.2), precise(0.4)), "*bias": dist.Laplace(precise(0.1), precise(0.7))}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    "algorithm",
    [
        MAP(learning_rate=0.1, momentum=0.0, schedule="constant"),
        SWAG(learning_rate=0.1, momentum=0.0, schedule="constant", swa_rate=1.0),
        LastLayerLaplace(learning_rate=0.1, momentum=0.0, schedule="constant"),
        MCDropout(learning_rate=0.1, momentum=0.0, schedule="constant"),
        DeepEnsemble(MAP(learning_rate=0.1, momentum=0.0, schedule="constant"), 1),
    ],
    ids=lambda algorithm: type(algorithm).__name__,
)
def test_priors_add_their_gradient_to_the_step_and_their_density_to_the_loss(
    algorithm: Inference[Any], size: int
) -> None:
    """Compare steps with and without priors, for algorithms that train as `MAP` does. Other parameters keep decay."""

    def stepped(priors: dict[str, Any]) -> tuple[Model, Tensor, dict[str, Tensor]]:
        torch.manual_seed(0)
        net = small()
        model = Model(perturb(ensemble(net, size, strategy="tile") if size > 1 else net), Gaussian(NOISE), priors)
        state = algorithm.init(model.double, 50, 10)
        state = getattr(state, "networks", [state])[0]
        before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
        torch.manual_seed(1)
        outer = type(algorithm).init(algorithm, lambda: model, 50, 10) if isinstance(algorithm, DeepEnsemble) else state
        return state.model, step(algorithm, outer, data()).loss, before

    model, loss, before = stepped(PRIORS)
    plain, plain_loss, _ = stepped({})
    total = torch.zeros((), dtype=torch.float64)
    for (name, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        value = before[name].requires_grad_()
        prior = next((prior for key, prior in PRIORS.items() if name.endswith(key.strip("*"))), None)
        own = size if name.endswith("bias") else 1
        log_density = torch.zeros(()) if prior is None else prior.log_prob(value).sum() / own
        move = 0.1 * (5e-4 * value.detach() / own if prior is not None else 0)
        if prior is not None:
            total = total + log_density.detach()
            move = move + 0.1 / 50 * torch.autograd.grad(log_density, value)[0]
        close((parameter - other).detach(), torch.zeros_like(value) + move, 1e-10)
    close(loss - plain_loss, -total / 50, 1e-10)


def test_one_family_of_priors_counts_shared_parameters_once_and_averages_those_of_members() -> None:
    """Weights, biases and factors have normal priors, which are evaluated as few vectors."""
    rules = {"weight": dist.Normal(0.1, 0.5), "bias": dist.Normal(0.2, 0.3), "factor": dist.Normal(1.0, 0.4)}
    model = Model(perturb(ensemble(nn.Linear(3, 2), 4, strategy="tile")), Gaussian(NOISE), rules).double()
    expected = torch.zeros((), dtype=torch.float64)
    for latent in model.latents():
        value = model.get_parameter(latent.parameter)
        expected = expected + latent.prior.log_prob(value) / latent.site.members  # type: ignore[union-attr]
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    close(NamedPriors(model).ascend(3.0), expected.detach(), 1e-6)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        close(parameter.grad, -3 * gradient, 1e-6)


@EACH
def test_factors_with_a_prior_are_not_decayed_to_their_signs(optimizer: str) -> None:
    net = ensemble(nn.Linear(3, 1, bias=False), 2, strategy="tile")
    net.network.weight.requires_grad_(False)
    nn.init.zeros_(net.network.weight)  # the outputs do not depend on the factors
    model = Model(net, Gaussian(NOISE), {"r": None, "s": dist.Normal(0.4, 0.2)}).double()
    before = net.network.r.detach().clone()
    found = fit_tensors(OPTIMIZERS[optimizer], model, *data(), num_steps=STEPS).model.network.network
    assert torch.equal(found.r, before)
    close(found.s.detach(), torch.full_like(found.s, 0.4), 1e-3)


def test_priors_around_signs_are_restored_with_a_state() -> None:
    def build(seed: int) -> Model:
        torch.manual_seed(seed)
        return Model(
            ensemble(nn.Linear(3, 2), 2, "random_sign", strategy="tile"), priors={"factor": around("sign", 0.5)}
        )

    algorithm = MAP()
    saved, other = algorithm.init(lambda: build(0), 10, 10), algorithm.init(lambda: build(1), 10, 10)
    expected = saved.priors.ascend(1.0)
    assert other.priors.ascend(1.0) == expected  # each model has priors around its own signs
    other.load_state_dict(saved.state_dict())
    close(other.priors.ascend(1.0), expected)


@pytest.mark.parametrize("algorithm", [SGHMC(), SGLD(), SVI(), SVI(factor_guide="low-rank")], ids=str)
def test_steps_of_a_loaded_state_are_under_priors_around_its_own_signs(algorithm: Inference[Any]) -> None:
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Model(ensemble(nn.Linear(3, 1), 2, "random_sign", strategy="tile"), Gaussian(NOISE)).double()
        states.append(algorithm.init(lambda model=model: model, 10, 10))
    states[1].load_state_dict(states[0].state_dict())
    found = []
    for state in states:
        torch.manual_seed(2)
        step(algorithm, state, data())
        found.append([value for _, value in leaves(state.state_dict()) if isinstance(value, Tensor)])
    for one, other in zip(*found, strict=True):
        close(one, other, 1e-12)


HIERARCHICAL = Hierarchical(dist.HalfNormal(torch.tensor(1.0)), lambda scale, site: dist.Normal(0.0, scale))


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (HIERARCHICAL, "the prior of weight is hierarchical"),
        (dist.LogNormal(0.0, 1.0), "the support of the prior of weight must be all real numbers"),
        (dist.HalfNormal(1.0), "such as Normal, Laplace or Cauchy"),
        (dist.Uniform(-1.0, 1.0), "such as Normal, Laplace or Cauchy"),
    ],
)
@pytest.mark.parametrize("algorithm", [MAP(), SWAG(), LastLayerLaplace(), DeepEnsemble(MAP(), 2)])
def test_hierarchical_and_bounded_priors_are_refused(algorithm: Inference[Any], prior: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        algorithm.init(lambda: regression({"weight": prior}), 10, 10)


def test_a_prior_that_matches_no_parameter_is_refused() -> None:
    with pytest.raises(InputError, match="the prior for 'wieght' matches no parameter: the trained parameters are"):
        MAP().init(lambda: regression({"wieght": dist.Normal(0.0, 1.0)}), 10, 10)


def test_parameters_without_a_prior_rule_keep_their_weight_decay() -> None:
    state = MAP(weight_decay=0.3).init(lambda: regression({"bias": dist.Normal(0.0, 1.0)}), 10, 10)
    decays = {id(p): group["weight_decay"] for group in state.stepper.optimizer.param_groups for p in group["params"]}
    assert decays[id(state.model.network.weight)] == 0.3
    assert decays[id(state.model.network.bias)] == 0
    close(state.priors.ascend(1.0), -0.5 * (state.model.network.bias.detach()[0] ** 2 + math.log(2 * math.pi)), 1e-12)
