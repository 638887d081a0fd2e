"""Every algorithm with every likelihood, and the distributions that `predictive` returns."""

import math
import re
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from bayes_share import fit_tensors, posterior_samples, predict, predictive
from bayes_share.errors import InputError
from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SGLD,
    SVI,
    SWAG,
    Batch,
    DeepEnsemble,
    Distill,
    Inference,
    LastLayerLaplace,
    MCDropout,
    predict_arguments,
    take_step,
)
from bayes_share.inference.methods.laplace.curvature import output_hessians
from bayes_share.models.likelihoods import Categorical, Gaussian, Likelihood, Poisson, StudentT
from bayes_share.models.model import Model
from bayes_share.models.predictive import Predictive
from bayes_share.sharing import ensemble

N = 24
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(1))
MEANS = X @ torch.tensor([1.0, -0.5, 0.2])

LIKELIHOODS: dict[str, tuple[Likelihood, int, Tensor]] = {
    "predicted noise": (Gaussian("predicted"), 2, MEANS),
    "predicted noise, two targets": (Gaussian("predicted"), 4, torch.stack([MEANS, -MEANS], 1)),
    "student": (StudentT(3.0, 0.5), 1, MEANS),
    "student, learned": (StudentT(3.0, 0.5, learned=True, learned_df=True), 1, MEANS),
    "student, predicted noise": (StudentT(5.0, "predicted"), 2, MEANS),
    "poisson": (Poisson(), 1, MEANS.exp().round().long()),
    "poisson, two": (Poisson(), 2, torch.stack([MEANS, -MEANS], 1).exp().round()),
}

ALGORITHMS: dict[str, Inference[Any]] = {
    "map": MAP(learning_rate=1e-3),
    "svi": SVI(learning_rate=1e-3),
    "svi, full covariance": SVI(guide="full-rank"),
    "ivon": IVON(),
    "deep ensemble": DeepEnsemble(of=MAP(learning_rate=1e-3), networks=2),
    "mc dropout": MCDropout(),
    "swag": SWAG(),
    "laplace": LastLayerLaplace(),
    "sghmc": SGHMC(),
    "sgld": SGLD(),
    "nuts": NUTS(max_tree_depth=1),
}


def network(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, outputs))


def model(likelihood: Likelihood, outputs: int) -> Model:
    """Return a model with a copy of the likelihood and a prior on its learned parameters, which samplers need."""
    rules = {"likelihood": dist.Normal(0.0, 1.0)} if list(likelihood.parameters()) else {}
    return Model(network(outputs), deepcopy(likelihood), rules)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)
def test_every_algorithm_trains_and_predicts_with_every_likelihood(algorithm: Inference[Any], name: str) -> None:
    likelihood, outputs, y = LIKELIHOODS[name]
    batch_size = None if isinstance(algorithm, NUTS) else 12
    state = fit_tensors(algorithm, lambda: model(likelihood, outputs), X, y, 3, batch_size)
    found = predictive(algorithm, state, X[:5], num_samples=2)
    assert found.shape == y[:5].shape
    assert found.mean.dtype == torch.float64
    assert bool(found.log_prob(y[:5]).isfinite().all())
    lower, upper = found.quantile([0.1, 0.9])
    assert bool((lower <= upper).all())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_distill_accepts_likelihoods_with_a_closed_form_divergence_only(name: str) -> None:
    likelihood, outputs, y = LIKELIHOODS[name]
    teacher = model(likelihood, outputs)
    learn = partial(fit_tensors, Distill(), lambda: model(likelihood, outputs), X, y, 3, 12, teacher=teacher)
    if isinstance(likelihood, StudentT):
        with pytest.raises(InputError, match="requires a KL divergence in closed form, which Student's t"):
            learn()
    else:
        assert bool(predictive(Distill(), learn(), X[:5]).mean.isfinite().all())


@pytest.mark.parametrize("name", ["svi", "ivon", "swag", "laplace", "sghmc", "sgld", "nuts", "deep ensemble"])
def test_algorithms_that_need_a_posterior_refuse_beta(name: str) -> None:
    algorithm = DeepEnsemble(of=SVI(), networks=2) if name == "deep ensemble" else ALGORITHMS[name]
    message = "requires a posterior, and with beta=0.5 the loss is not a negative log-likelihood: use MAP"
    with pytest.raises(InputError, match=message) as caught:
        fit_tensors(algorithm, lambda: Model(network(2), Gaussian("predicted", beta=0.5)), X, MEANS, 3)
    assert "\n" not in str(caught.value)


def test_a_step_uses_beta_and_weights_and_reports_the_log_likelihood() -> None:
    algorithm, likelihood = MAP(weight_decay=0.0), Gaussian("predicted", beta=1.0)
    state = fit_tensors(algorithm, Model(network(2), likelihood), X, MEANS, 0)
    outputs, weights = state.model(X).detach(), torch.arange(N) % 3.0
    info = take_step(algorithm, state, Batch(X, MEANS, weights), 0)
    loc, scale = outputs[0, :, 0], torch.nn.functional.softplus(outputs[0, :, 1])
    log_density = torch.distributions.Normal(loc, scale).log_prob(MEANS)
    torch.testing.assert_close(info.log_lik, (weights * log_density).sum() / weights.sum())
    torch.testing.assert_close(info.loss, -(weights * scale.square() * log_density).sum() / weights.sum())


@pytest.mark.parametrize("algorithm", [MAP(), MCDropout(), DeepEnsemble(of=MAP(), networks=2)])
def test_point_estimates_accept_beta(algorithm: Inference[Any]) -> None:
    build = lambda: Model(network(2), Gaussian("predicted", beta=0.5))  # noqa: E731
    assert bool(predictive(algorithm, fit_tensors(algorithm, build, X, MEANS, 2), X).mean.isfinite().all())


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_output_curvature_is_positive_and_independent_of_the_targets(name: str) -> None:
    likelihood, outputs, y = LIKELIHOODS[name]
    found, far = (output_hessians(likelihood, torch.ones(N, outputs), targets) for targets in (y, y + 50))
    assert not found.requires_grad
    assert float(torch.linalg.eigvalsh(far).min()) > 0
    torch.testing.assert_close(found, far)


def test_the_predictive_mixture_uses_the_learned_noise_of_each_network() -> None:
    def build() -> Model:
        return Model(nn.Linear(3, 1), Gaussian(0.5, learned=True))

    algorithm = DeepEnsemble(of=MAP(learning_rate=0.01), networks=3)
    state = fit_tensors(algorithm, build, X, MEANS, 5)
    sds, means = [], []
    for number, network in enumerate(state.networks):
        learned = network.model
        with torch.no_grad():
            learned.likelihood.log_noise.fill_(math.log(number + 1))
        sds.append(number + 1)
        means.append(learned.network(X[:4]).detach().double()[:, 0])
    found = predictive(algorithm, state, X[:4])
    targets = MEANS[:4].double()
    densities = [stats.norm.pdf(targets, mean, sd) for mean, sd in zip(means, sds, strict=True)]
    torch.testing.assert_close(found.log_prob(targets), torch.from_numpy(sum(densities) / 3).log(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.aleatoric, torch.full((4,), 14 / 3).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.epistemic, torch.stack(means).var(0, correction=0), rtol=1e-5, atol=1e-9)


def test_predictive_arguments_use_the_noise_of_each_draw() -> None:
    rules = {"likelihood": dist.Normal(0.0, 1.0)}
    algorithm = SVI(learning_rate=1e-3)
    state = fit_tensors(algorithm, lambda: Model(nn.Linear(3, 1), Gaussian(1.0, learned=True), rules), X, MEANS, 3)
    likelihood, arguments = predict_arguments(algorithm, state, X[:4], 6)
    draws = posterior_samples(algorithm, state, 6)
    assert isinstance(likelihood, Gaussian)
    assert arguments["loc"].shape == (6, 1, 4)
    assert arguments["scale"].shape == (6, 1, 1)
    noise = draws["likelihood.log_noise"].double().exp().flatten()
    assert float(noise.std()) > 1e-4
    torch.testing.assert_close(arguments["scale"].flatten(), noise)


def test_the_log_probability_of_classes_is_that_of_the_mixture_of_members() -> None:
    members = Model(ensemble(nn.Linear(3, 4), 3, init="normal"), Categorical(class_axis=1))
    labels = torch.arange(N) % 4
    state = fit_tensors(MAP(), members, X, labels, 3)
    found = predictive(MAP(), state, X[:6]).log_prob(labels[:6])
    logits = predict(MAP(), state, X[:6]).double()
    expected = logits.softmax(-1).mean((0, 1))[torch.arange(6), labels[:6]].log()
    torch.testing.assert_close(found, expected)


class DoubleExponential(Likelihood):
    """A minimal custom likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(0.5))

    def arguments(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"loc": outputs.squeeze(-1), "scale": self.log_scale.exp()}

    def of(self, arguments: Mapping[str, Tensor]) -> torch.distributions.Distribution:
        return torch.distributions.Laplace(**arguments)


@pytest.mark.parametrize("name", ["map", "svi, full covariance", "laplace", "nuts", "deep ensemble"])
def test_a_custom_likelihood_needs_only_its_arguments_and_distribution(name: str) -> None:
    algorithm = ALGORITHMS[name]
    state = fit_tensors(algorithm, lambda: model(DoubleExponential(), 1), X, MEANS, 3)
    found = predictive(algorithm, state, X[:4], 2)
    assert found.shape == (4,)
    loc, scale = found.components.loc, found.components.scale  # type: ignore[attr-defined]
    expected = torch.distributions.Laplace(loc, scale).log_prob(MEANS[:4]).exp().mean((0, 1)).log()
    torch.testing.assert_close(found.log_prob(MEANS[:4]), expected)
    assert DoubleExponential.name == "DoubleExponential"


def test_nan_outputs_give_a_nan_log_likelihood_and_torch_still_validates() -> None:
    nowhere = torch.full((1, 3, 1), math.nan)
    assert bool(DoubleExponential().log_lik(nowhere, torch.zeros(1, 3)).isnan().all())
    with pytest.raises(ValueError, match="parameter loc"):  # validation is still on
        torch.distributions.Normal(nowhere, 1.0)


def test_a_likelihood_without_a_distribution_has_no_predictive() -> None:
    class Old(Likelihood):
        def log_lik(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return -(outputs.squeeze(-1) - targets).square()

    state = fit_tensors(MAP(), Model(nn.Linear(3, 1), Old()), X, MEANS, 3)
    message = r"^Old does not define its distribution: implement its methods arguments\(\) and of\(\)$"
    with pytest.raises(InputError, match=message):
        predictive(MAP(), state, X)


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_predictive_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    state = fit_tensors(MAP(), lambda: Model(network(2), Gaussian("predicted")), X, MEANS, 3)
    expected, found = predictive(MAP(), state, X), predictive(MAP(), state, X, batch_size=batch_size)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_predicted_noise_is_that_of_the_data(beta: float) -> None:
    """The data have two distinct inputs, with noise of standard deviation 0.3 and 1.2."""
    count = 4000
    generator = torch.Generator().manual_seed(3)
    side = (torch.arange(count) % 2).float()
    sd = 0.3 + 0.9 * side
    y = 2 * side + sd * torch.randn(count, generator=generator)
    sides = torch.tensor([[0.0], [1.0]])

    def found(steps: int) -> Predictive:
        build = partial(Model, nn.Linear(1, 2), Gaussian("predicted", beta=beta))
        algorithm = MAP(learning_rate=0.05, weight_decay=0.0)
        return predictive(algorithm, fit_tensors(algorithm, build, side[:, None], y, steps), sides)

    expected = torch.tensor([0.3, 1.2]).double()
    # The standard errors of means; those of standard deviations are smaller by sqrt(2).
    errors = math.sqrt(2 / count) * expected
    trained, untrained = found(500), found(0)
    for value, right in ((trained.mean, torch.tensor([0.0, 2.0])), (trained.variance.sqrt(), expected)):
        assert bool(((value - right).abs() < 4 * errors).all()), value
    assert not bool(((untrained.variance.sqrt() - expected).abs() < 4 * errors).any())


def test_the_documented_custom_likelihood_equals_poisson() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guides" / "likelihoods.md").read_text(encoding="utf-8")
    block, *_ = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, "likelihoods.md", "exec"), names)
    outputs, y = names["x"][None].double(), names["y"][None].double()
    torch.testing.assert_close(names["Counts"]().log_lik(outputs, y), Poisson().log_lik(outputs, y))
    expected = (1 + 2 * names["x"][:, 0]).exp().double()
    assert float((names["found"].mean / expected - 1).abs().max()) < 0.5  # of 40 counts
    assert names["found"].is_discrete
