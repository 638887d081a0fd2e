"""Likelihoods against their distributions and explicit formulas, distillation losses, and invalid targets."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bayes_share.errors import InputError
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood

SHAPE = (3, 5)  # member, batch


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(classes: int) -> Tensor:
    return torch.randint(classes, SHAPE, generator=torch.Generator().manual_seed(1))


CASES: dict[str, tuple[Likelihood, Tensor, Tensor, Tensor]] = {
    "categorical": (Categorical(), 3 * normal(*SHAPE, 4), labels(4), labels(4)),
    "bernoulli": (Bernoulli(), 3 * normal(*SHAPE, 1), labels(2), labels(2).double()),
    "gaussian": (Gaussian(0.7).double(), normal(*SHAPE, 1), normal(*SHAPE, seed=1), normal(*SHAPE, seed=1)),
    "bernoulli, squeezed": (Bernoulli(), 3 * normal(*SHAPE), labels(2), labels(2).double()),
    "gaussian, squeezed": (Gaussian(0.7).double(), normal(*SHAPE), normal(*SHAPE, seed=1), normal(*SHAPE, seed=1)),
    "gaussian, two targets": (
        Gaussian(0.7, learned=True).double(),
        normal(*SHAPE, 2),
        normal(*SHAPE, 2, seed=1),
        normal(*SHAPE, 2, seed=1),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_log_lik_is_the_log_density_of_the_distribution(case: tuple[Likelihood, Tensor, Tensor, Tensor]) -> None:
    likelihood, outputs, targets, values = case
    distribution = likelihood.distribution(outputs)
    assert distribution.batch_shape == SHAPE
    found = likelihood.log_lik(outputs, targets)
    assert found.shape == SHAPE
    assert found.dtype == torch.float64
    expected = distribution.log_prob(values.reshape(distribution.shape()))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)


def test_densities_match_explicit_formulas() -> None:
    outputs, targets = normal(*SHAPE, 2), normal(*SHAPE, 2, seed=1)
    found = Gaussian(0.5).double().log_lik(outputs, targets)
    expected = torch.zeros(SHAPE, dtype=torch.float64)
    for m in range(3):
        for i in range(5):
            for k in range(2):
                error = float(targets[m, i, k] - outputs[m, i, k])
                expected[m, i] += -(error**2) / (2 * 0.25) - math.log(0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    probability = outputs[..., :1].sigmoid().squeeze(-1)
    yes = torch.ones(SHAPE, dtype=torch.long)
    torch.testing.assert_close(Bernoulli().log_lik(outputs[..., :1], yes), probability.log())
    torch.testing.assert_close(Bernoulli().log_lik(outputs[..., :1], 0 * yes), (1 - probability).log())


def test_gradient_of_learned_noise_matches_its_formula() -> None:
    likelihood = Gaussian(0.5, learned=True).double()
    outputs, targets = normal(*SHAPE, 1), normal(*SHAPE, seed=1)
    likelihood.log_lik(outputs, targets).sum().backward()
    (parameter,) = likelihood.parameters()
    squares = (targets - outputs.squeeze(-1)).square()
    expected = (squares / parameter.detach().exp().square() - 1).sum()
    assert parameter.grad is not None
    torch.testing.assert_close(parameter.grad, expected)
    assert list(Gaussian(0.5).parameters()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_log_lik_is_computed_in_at_least_float32(case: Any, dtype: torch.dtype) -> None:
    likelihood, outputs, targets, _ = case
    found = likelihood.float().log_lik(outputs.to(dtype), targets)
    likelihood.double()
    if not targets.is_floating_point():
        assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), likelihood.log_lik(outputs.to(dtype).double(), targets), rtol=1e-4, atol=1e-4
    )


def test_correct_is_1_where_the_most_probable_class_is_the_target() -> None:
    outputs = torch.tensor([[[2.0], [-1.0], [0.5]]])
    assert Bernoulli().correct(outputs, torch.tensor([[1, 0, 0]])).tolist() == [[1.0, 1.0, 0.0]]
    assert bool(Gaussian().correct(outputs, torch.zeros(1, 3)).isnan().all())


def test_samples_of_the_distribution_have_the_shape_of_the_targets() -> None:
    assert Categorical().distribution(normal(*SHAPE, 4)).sample().shape == SHAPE
    assert Bernoulli().distribution(normal(*SHAPE, 1)).sample().shape == SHAPE
    assert Gaussian().distribution(normal(*SHAPE, 2)).sample().shape == (*SHAPE, 2)


@pytest.mark.parametrize(
    ("likelihood", "outputs", "targets", "message"),
    [
        (Categorical(), (3, 5, 4), (3, 4), r"targets of shape \[4\] do not match outputs of shape \[5, 4\]"),
        (Categorical(), (3, 5, 4), (3, 5, 4), r"they must have shape \[5\]"),
        (Bernoulli(), (3, 5, 2), (3, 5), r"they must have shape \[5, 2\]"),
        (Bernoulli(), (3, 5, 1), (3, 4), r"targets of shape \[4\]"),
        (Gaussian(), (3, 5, 2), (3, 5), r"they must have shape \[5, 2\]"),
        (Gaussian(), (3, 5, 1), (3, 4), r"they must have shape \[5\]"),
        (
            Gaussian(),
            (3, 4, 6),
            (3, 6, 4),
            r"they must have shape \[4, 6\]",
        ),  # equally many values in another shape
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_targets_of_the_wrong_shape_raise(
    likelihood: Likelihood, outputs: tuple[int, ...], targets: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        likelihood.log_lik(torch.zeros(outputs), torch.zeros(targets, dtype=torch.long))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.inf, math.nan])
def test_noise_that_is_not_positive_and_finite_raises(noise: float) -> None:
    with pytest.raises(InputError, match="the noise must be a positive standard deviation"):
        Gaussian(noise)


SOFTENED: dict[str, tuple[Likelihood, Tensor, Tensor, Tensor]] = {
    "classes": (Categorical(), 3 * normal(*SHAPE, 4), 3 * normal(*SHAPE, 4, seed=2), labels(4)),
    "positions": (
        Categorical(class_axis=1),
        3 * normal(*SHAPE, 4, 2),
        3 * normal(*SHAPE, 4, 2, seed=2),
        torch.stack([labels(4), labels(3)], 2),
    ),
    "binary": (Bernoulli(), 3 * normal(*SHAPE), 3 * normal(*SHAPE, seed=2), labels(2)),
    "several labels": (
        Bernoulli(),
        3 * normal(*SHAPE, 3),
        3 * normal(*SHAPE, 3, seed=2),
        labels(2)[..., None].expand(3, 5, 3),
    ),
}


@pytest.mark.parametrize("case", SOFTENED.values(), ids=SOFTENED)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_divergence_is_the_kl_divergence_of_the_softened_distributions(
    case: tuple[Likelihood, Tensor, Tensor, Tensor], temperature: float
) -> None:
    likelihood, ours, theirs, targets = case
    found = likelihood.divergence(ours, likelihood, theirs, targets, temperature)
    p, q = (likelihood.distribution(each / temperature) for each in (theirs, ours))
    expected = temperature**2 * torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_divergence_of_gaussians_depends_on_the_noise() -> None:
    ours, theirs, targets = normal(*SHAPE, 2), normal(*SHAPE, 2, seed=2), normal(*SHAPE, 2, seed=3)
    student, teacher = Gaussian(0.7, learned=True).double(), Gaussian(0.3).double()
    found = student.divergence(ours, teacher, theirs, targets, 4.0)
    expected = torch.distributions.kl_divergence(teacher.distribution(theirs), student.distribution(ours))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert student.log_noise.grad_fn is None
    found.sum().backward()
    assert abs(float(student.log_noise.grad)) > 0.1


def test_a_user_defined_likelihood_without_divergence_raises() -> None:
    class Own(Gaussian):
        divergence = Likelihood.divergence

    outputs = normal(*SHAPE)
    with pytest.raises(InputError, match=r"Own does not support distillation: implement its method divergence\(\)"):
        Own().divergence(outputs, Own(), outputs, outputs, 1.0)


def test_softened_divides_logits_by_the_temperature() -> None:
    logits = 3 * normal(*SHAPE, 4, 2)
    values, confidence = Categorical(class_axis=1).softened(logits, 2.0)
    torch.testing.assert_close(values, (logits / 2).softmax(2))
    torch.testing.assert_close(confidence, (logits / 2).softmax(2).amax(2).mean(2))
    values, confidence = Bernoulli().softened(logits[:, :, 0], 2.0)
    torch.testing.assert_close(values, (logits[:, :, 0] / 2).sigmoid())
    torch.testing.assert_close(confidence, (logits[:, :, 0].abs() / 2).sigmoid().mean(2))
    values, confidence = Gaussian().softened(logits, 2.0)
    assert torch.equal(values, logits)
    assert torch.equal(confidence, torch.ones(SHAPE).double())
