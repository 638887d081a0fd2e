"""Last-layer Laplace: exact for a single linear layer, and otherwise equal to the curvature from autograd."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from algorithms import builder, digits, trained
from explicit import close, perturb
from regression import NUM_DATA, NUM_INPUTS, PRIOR_SD, PROBLEMS, Problem, data, draws, misses
from states import differences, through_bytes
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, LastLayerLaplace, Training, batches_of, fit_tensors, predict
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.laplace.curvature import (
    Curvature,
    Diag,
    Full,
    Kron,
    evidence_precision,
    output_hessians,
    rotate,
)
from bayes_share.inference.methods.laplace.laplace import LaplaceState
from bayes_share.inference.step.drivers import step
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble, fold

EXACT = LastLayerLaplace(
    learning_rate=0.02,
    schedule="constant",
    weight_decay=1 / (PRIOR_SD["base"] ** 2 * NUM_DATA),
    prior_precision=None,
    structure="full",
)

COUNT = 1000


def converged(algorithm: MAP, build: Any) -> Any:
    return fit_tensors(algorithm, build, *data(), num_steps=300)


def test_the_posterior_of_a_linear_regression_is_exact() -> None:
    problem = PROBLEMS[0]
    untrained = EXACT.init(problem.build(), NUM_DATA, 10)
    assert misses(draws(partial(EXACT.draw, untrained), COUNT), problem.exact())
    state = converged(EXACT, problem.build())
    close(covariance(state), problem.exact().covariance[0], 1e-7)
    found = draws(partial(EXACT.draw, state), COUNT)
    assert misses(found, problem.exact(), mean=0.0, sd=0.0) == []
    error = problem.exact().sd[0].outer(problem.exact().sd[0]) * (2 / COUNT) ** 0.5
    assert ((found[:, 0].T.cov() - problem.exact().covariance[0]).abs() < 4 * error).all()


@pytest.mark.parametrize("prior_precision", [0.01, 8.0])
def test_a_wrong_prior_precision_gives_another_posterior(prior_precision: float) -> None:
    problem = PROBLEMS[0]
    wrong = replace(EXACT, prior_precision=prior_precision)
    assert misses(
        draws(partial(wrong.draw, converged(wrong, problem.build())), COUNT), problem.exact(), mean=0.0, sd=0.0
    )


def test_the_diagonal_structure_gives_the_mean_field_posterior() -> None:
    problem = PROBLEMS[0]
    diagonal = replace(EXACT, structure="diag")
    found = draws(partial(diagonal.draw, converged(diagonal, problem.build())), COUNT)
    assert misses(found, problem.mean_field(), mean=0.0, sd=0.0) == []
    assert misses(found, problem.exact())


def test_every_member_is_exact_if_all_have_the_same_known_factors() -> None:
    def build() -> Model:
        net = ensemble(nn.Linear(NUM_INPUTS, 1, bias=False), 3, init="ones", strategy="tile")
        for factor in (net.network.r, net.network.s):
            factor.requires_grad_(False)
        return Model(net, Gaussian(0.5)).double()

    algorithm = replace(EXACT, feed="split")
    x, y = (part.repeat(3, *[1] * (part.ndim - 1)) for part in data())  # each member's part of the batch is all data
    state = algorithm.init(build, NUM_DATA, 300)
    for _ in range(300):
        step(algorithm, state, (x, y))
    algorithm.finish(state, [Batch(*data())])
    exact = Problem("layer", 1, "base").exact()
    for member in range(3):
        close(covariance(state, member), exact.covariance[0], 1e-7)
    found = draws(partial(algorithm.draw, state), 300)
    assert misses(found, exact, mean=0.0, sd=0.0) == []
    assert (found[:, 0] - found[:, 1]).abs().max() > 0.1  # each has its own draw


def network(outputs: int, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs, bias=bias))
    return perturb(net.double())


LIKELIHOODS = {
    "categorical": (Categorical(), 3, torch.arange(12) % 3),
    "gaussian": (Gaussian(0.3), 3, torch.linspace(-1, 1, 36, dtype=torch.float64).view(12, 3)),
    "bernoulli": (Bernoulli(), 1, torch.arange(12) % 2),
}
LIKELIHOOD = pytest.mark.parametrize(("likelihood", "outputs", "y"), LIKELIHOODS.values(), ids=LIKELIHOODS)


def inputs() -> Tensor:
    return torch.randn(12, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def brute_force(net: nn.Module, likelihood: Likelihood, y: Tensor) -> Tensor:
    """Return the Hessian of the total loss in the last layer's parameters ``[output, input]``, by autograd."""
    hidden = net[:2](inputs()).detach()

    def loss(numbers: Tensor) -> Tensor:
        ones = torch.ones(len(hidden), 1, dtype=torch.float64)
        features = hidden if net[2].bias is None else torch.cat([hidden, ones], 1)
        return -likelihood.double().log_lik((features @ numbers.T)[None], y[None]).sum()

    parts = [net[2].weight] if net[2].bias is None else [net[2].weight, net[2].bias[:, None]]
    numbers = torch.cat(parts, 1).detach()
    return torch.autograd.functional.hessian(loss, numbers).flatten(2, 3).flatten(0, 1)


def covariance(state: LaplaceState, member: int = 0) -> Tensor:
    """Return the covariance given by the state's standard deviations and eigenvectors."""
    sd, vectors = state.sds[member], state.vectors[member]
    units = torch.eye(sd.numel(), dtype=sd.dtype)
    columns = torch.stack([rotate((sd.flatten() * unit).view(sd.shape), vectors).flatten() for unit in units])
    return columns.T @ columns


def finished(net: nn.Module, likelihood: Likelihood, y: Tensor, **options: Any) -> LaplaceState:
    algorithm = LastLayerLaplace(**{"prior_precision": 0.7, **options})
    state = algorithm.init(lambda: Model(net, likelihood).double(), 12, 1)
    algorithm.finish(state, [Batch(*pair) for pair in zip(inputs().split(5), y.split(5), strict=True)])
    return state


@LIKELIHOOD
@pytest.mark.parametrize("bias", [True, False])
def test_the_precision_is_the_hessian_from_autograd_plus_the_prior_precision(
    likelihood: Likelihood, outputs: int, y: Tensor, bias: bool
) -> None:
    net = network(outputs, bias)
    expected = brute_force(net, likelihood, y)
    prior = 0.7 * torch.eye(len(expected), dtype=torch.float64)
    close(torch.linalg.inv(covariance(finished(net, likelihood, y))), expected + prior, 1e-8)
    diagonal = covariance(finished(net, likelihood, y, structure="diag"))
    close(1 / diagonal.diagonal(), (expected + prior).diagonal(), 1e-8)
    close(diagonal, diagonal.diagonal().diag())


@LIKELIHOOD
def test_the_kronecker_factors_are_the_mean_hessian_and_summed_features(
    likelihood: Likelihood, outputs: int, y: Tensor
) -> None:
    net = network(outputs)
    features = torch.cat([net[:2](inputs()), torch.ones(12, 1, dtype=torch.float64)], 1).detach()
    hessians = output_hessians(likelihood.double(), net(inputs()).detach(), y)
    expected = torch.kron(hessians.mean(0), features.T @ features) + 0.7 * torch.eye(outputs * 6, dtype=torch.float64)
    close(torch.linalg.inv(covariance(finished(net, likelihood, y, structure="kron"))), expected, 1e-8)
    if isinstance(likelihood, Gaussian) or outputs == 1:
        return
    full = torch.linalg.inv(covariance(finished(net, likelihood, y)))
    assert (full - expected).abs().max() > 0.1


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_part_of_the_last_layer_has_no_posterior(frozen: str) -> None:
    net = network(3)
    net[2].get_parameter(frozen).requires_grad_(False)
    likelihood, _, y = LIKELIHOODS["categorical"]
    state = finished(net, likelihood, y)
    assert state.sds[0].shape == ((3, 1) if frozen == "weight" else (3, 5))
    hessian = brute_force(net, likelihood, y).view(3, 6, 3, 6)
    part = slice(5, 6) if frozen == "weight" else slice(0, 5)
    count = state.sds[0].numel()
    expected = hessian[:, part, :, part].reshape(count, count) + 0.7 * torch.eye(count, dtype=torch.float64)
    close(torch.linalg.inv(covariance(state)), expected, 1e-8)
    x = torch.zeros(1, 4, dtype=torch.float64)
    assert not torch.equal(LastLayerLaplace().draw(state, 0)(x), LastLayerLaplace().draw(state, 1)(x))


@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_each_member_has_the_curvature_of_its_folded_network(strategy: str) -> None:
    net = perturb(ensemble(network(3), 3, strategy=strategy, init="normal"))
    likelihood, _, y = LIKELIHOODS["categorical"]
    state = finished(net, likelihood, y)
    for member in range(3):
        alone = fold(net, member)
        close(
            torch.linalg.inv(covariance(state, member)), brute_force(alone, likelihood, y) + 0.7 * torch.eye(18), 1e-8
        )
    found = predict(LastLayerLaplace(), state, inputs(), 200)
    mean = predict(MAP(), state.point, inputs())[0]
    features = torch.cat([fold(net, 1)[:2](inputs()), torch.ones(12, 1, dtype=torch.float64)], 1).detach()
    of_outputs = covariance(state, 1).view(3, 6, 3, 6).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    spread = torch.stack([features @ part for part in of_outputs])
    sd = (spread * features).sum(-1).sqrt().T  # [example, output]
    errors = (found[:, 1].mean(0) - mean[1]) / sd * 200**0.5
    assert errors.abs().max() < 4.5
    assert (found[:, 1].std(0) / sd - 1).abs().max() < 4.5 / 400**0.5


@pytest.mark.parametrize("kind", [Full, Kron, Diag])
def test_the_curvature_is_the_sum_over_batches(kind: type[Curvature]) -> None:
    net = network(3)
    hessians = output_hessians(Categorical(), net(inputs()).detach(), torch.arange(12) % 3)
    whole, parts = kind(), kind()
    whole.add(inputs(), hessians)
    for x, hessian in zip(inputs().split(5), hessians.split(5), strict=True):
        parts.add(x, hessian)
    close(whole.eigenvalues(), parts.eigenvalues())


def test_the_tuned_prior_precision_maximises_the_evidence() -> None:
    likelihood, _, y = LIKELIHOODS["categorical"]
    net = network(3)
    hessian = brute_force(net, likelihood, y)
    squared_norm = float(sum(value.detach().square().sum() for value in net[2].parameters()))

    def evidence(precision: float) -> float:
        """Return the log marginal likelihood up to a constant."""
        eigenvalues = torch.linalg.eigvalsh(hessian).clamp_min(0)
        half = 0.5 * (len(hessian) * torch.tensor(precision).log() - (eigenvalues + precision).log().sum())
        return float(half - 0.5 * precision * squared_norm)

    eigenvalues = torch.linalg.eigvalsh(hessian).clamp_min(0).view(3, 6)
    best = evidence_precision(eigenvalues, squared_norm, 0.7, iterations=1000)
    for factor in (0.3, 0.8, 0.95, 1.05, 1.2, 3.0):
        assert evidence(best) > evidence(best * factor)
    tuned = torch.linalg.inv(covariance(finished(net, likelihood, y, tune_prior=True)))
    close(tuned, hessian + best * torch.eye(18, dtype=torch.float64), 1e-3)


def test_structure_auto_depends_on_the_size_of_the_last_layer() -> None:
    likelihood, _, y = LIKELIHOODS["categorical"]
    assert len(finished(network(3), likelihood, y, structure="auto").vectors[0]) == 1
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(4, 700), nn.Linear(700, 3))
    assert len(finished(wide, likelihood, y, structure="auto").vectors[0]) == 2


@pytest.mark.parametrize("size", [1, 3])
def test_draws_are_the_network_until_finished_and_finished_states_are_loaded(size: int) -> None:
    algorithm = LastLayerLaplace()
    run = Training(algorithm, builder(size, norm="batch"), batches_of(digits(), 48), 1)
    trained(run, 4)
    x = digits().normalise(digits().test.images)
    assert torch.equal(predict(algorithm, run.state, x, 2)[1], predict(MAP(), run.state.point, x)[0])
    trained(run)
    saved = through_bytes(run.state_dict())
    other = Training(algorithm, builder(size, norm="batch"), batches_of(digits(), 48), 1, seed=8)
    other.load_state_dict(saved)
    assert differences(saved, other.state_dict()) == []
    assert torch.equal(predict(algorithm, other.state, x, 3), predict(algorithm, run.state, x, 3))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh())


def frozen_head() -> nn.Module:
    net = network(3)
    net[2].requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1)), "outputs are not those of its last linear layer"),
        (nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 3, 1), nn.Flatten()), "no linear layer"),
        (Twice(), "called more than once"),
        (frozen_head(), "is frozen"),
    ],
)
def test_networks_without_a_valid_last_layer_are_refused(net: nn.Module, words: str) -> None:
    likelihood, _, y = LIKELIHOODS["categorical"]
    with pytest.raises(InputError, match=words):
        finished(net, likelihood, y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"structure": "kfac"}, "structure"),
        ({"prior_precision": 0.0}, "must be positive"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LastLayerLaplace(**options)


def test_a_missing_prior_is_refused_before_training() -> None:
    algorithm = LastLayerLaplace(prior_precision=None, weight_decay=0.0)
    state = algorithm.init(lambda: Model(network(3)), 12, 1)
    with pytest.raises(InputError, match="set prior_precision"):
        algorithm.check(state, Batch(inputs()[:2], torch.arange(2)))


def test_finish_without_batches_is_refused() -> None:
    state = LastLayerLaplace().init(lambda: Model(network(3)), 12, 1)
    with pytest.raises(InputError, match="no batch"):
        LastLayerLaplace().finish(state, [])
