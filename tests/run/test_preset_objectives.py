"""The objectives of presets with weight decay, which use no priors."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bayes_share.data import load_data
from bayes_share.errors import InputError
from bayes_share.inference import MAP, SGHMC, SVI, DeepEnsemble
from bayes_share.inference.step.drivers import step
from bayes_share.models.model import Model
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.presets import PRESETS
from bayes_share.sharing.kinds import parameter_kinds

DATA = load_data("digits")
SMALL = {"sgd-cifar10": "resnet8_2", "adamw-cifar10": "resnet8_2", "batch-ensemble-cifar10": "resnet8_2"}


def config_of(name: str) -> RunConfig:
    return from_flat({**PRESETS[name], "model": SMALL.get(name, "resnet8_2")})


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 1, 8, 8, generator=generator), torch.arange(6)


def gradients(model: Model, members: int) -> dict[str, Tensor]:
    """Return the gradients of the mean negative log-likelihood."""
    x, y = batch()
    outputs = model.train()(x).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(outputs, y.repeat(members))
    return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_a_step_follows_the_mean_loss_and_the_weight_decay(name: str) -> None:
    config = config_of(name)
    members, algorithm = config.ensemble_size, config.algorithm
    torch.manual_seed(1)
    state = algorithm.init(config.build(DATA), 50_000, 100)
    before = {key: p.detach().clone() for key, p in state.model.named_parameters()}
    torch.manual_seed(1)
    gradient = gradients(config.build(DATA)(), members)
    kinds = parameter_kinds(state.model)
    info = step(algorithm, state, batch())
    steps = algorithm.descent.steps
    rate = steps.learning_rate * steps.rate_at(0, 100)
    for key, p in state.model.named_parameters():
        kind = kinds[key]
        lr = rate * (steps.factor_rate if kind == "factor" else 1)
        decay = 0 if kind == "factor" else PRESETS[name]["weight_decay"]
        if algorithm.descent.optimizer == "sgd":
            expected = before[key] - lr * 1.9 * (
                gradient[key] + decay / (members if kind == "member" else 1) * before[key]
            )
        else:
            expected = before[key] * (1 - lr * decay) - lr * gradient[key] / (gradient[key].abs() + 1e-8)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(info.loss, -info.log_lik)


def test_ivon_uses_the_weight_decay_as_its_prior() -> None:
    state = config_of("ivon-cifar10").algorithm.init(config_of("ivon-cifar10").build(DATA), 45_000, 100)
    groups = state.optimizer.param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(state.model.parameters()))
    for group in groups:
        assert (group["weight_decay"], group["ess"], group["hess_init"], group["centre"]) == (2e-4, 5e4, 0.5, 0.0)
        for p in group["params"]:
            assert set(state.optimizer.state[p]) == {"step", "momentum", "hess"}


@pytest.mark.parametrize("algorithm", [SVI(), SGHMC(), DeepEnsemble(SVI(), 2)])
def test_algorithms_with_priors_use_the_prior_options(algorithm: Any) -> None:
    model = RunConfig(algorithm=algorithm, prior="laplace", latent="all").build(DATA)()
    assert {type(latent.prior.base_dist).__name__ for latent in model.latents()} == {"Laplace"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": "laplace"}, "prior laplace requires an algorithm that uses priors .* and map uses weight decay"),
        ({"prior_scale": 2.0}, "prior_scale 2.0"),
        ({"latent": "factors"}, "latent factors"),
        ({"factor_prior_centre": "one"}, "factor_prior_centre one"),
        ({"algorithm": DeepEnsemble(MAP(), 2), "factor_prior": "cauchy"}, "and deep-ensemble uses weight decay"),
    ],
)
def test_prior_options_are_refused_for_algorithms_without_priors(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        RunConfig(**options)
