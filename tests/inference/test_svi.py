"""SVI: the bound equals Pyro's, and guides find known posteriors."""

import copy
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from explicit import perturb
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from regression import EACH, NUM_DATA, PRIOR_SD, PROBLEMS, Posterior, Problem, data, draws, misses
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP, SVI, fit_tensors, predict
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.svi.bound import PlainBound, PyroBound, pyro_guide
from bayes_share.inference.methods.svi.guides import MeanField
from bayes_share.inference.methods.svi.local_reparametrization import drawing_outputs
from bayes_share.inference.methods.svi.svi import SVIState
from bayes_share.inference.step.drivers import step as one_step
from bayes_share.layers.factors import FactorInit
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.models.program import pyro_model
from bayes_share.priors import Hierarchical, around
from bayes_share.sharing import ensemble

PRIORS = {"base": dist.Normal(0.0, PRIOR_SD["base"]), "factor": around("one", PRIOR_SD["factor"])}
QUICK = pytest.mark.usefixtures("unchecked")  # annotation checks take most of the time of thousands of steps


@cache
def fitted(problem: Problem, num_steps: int = 300, **options: Any) -> Tensor:
    """Return draws of the weights after training on all the data."""
    algorithm = SVI(learning_rate=0.08, num_particles=4, initial_scale=0.1, **options)
    build = problem.build({problem.unknown: PRIORS[problem.unknown]})
    state = fit_tensors(algorithm, build, *data(), num_steps)
    return draws(partial(algorithm.draw, state), 800)


@QUICK
@EACH
def test_an_independent_normal_guide_finds_the_mean_field_posterior(problem: Problem) -> None:
    expected = problem.mean_field()
    assert misses(fitted(problem, num_steps=0), expected)
    assert misses(fitted(problem), expected) == []


@QUICK
@pytest.mark.parametrize(
    ("problem", "kl_weight"), [(PROBLEMS[0], 2.0), pytest.param(PROBLEMS[3], 0.0, marks=pytest.mark.slow)]
)
def test_another_kl_weight_gives_another_posterior(problem: Problem, kl_weight: float) -> None:
    assert misses(fitted(problem, kl_weight=kl_weight), problem.mean_field())


@QUICK
@pytest.mark.parametrize(
    ("guide", "problem"),
    [
        pytest.param("full-rank", PROBLEMS[0], id="full-rank-layer"),
        pytest.param("low-rank", PROBLEMS[3], id="low-rank-ensemble", marks=pytest.mark.slow),
        pytest.param("full-rank", PROBLEMS[3], id="full-rank-ensemble", marks=pytest.mark.slow),
        pytest.param("low-rank", PROBLEMS[0], id="low-rank-layer", marks=pytest.mark.slow),
    ],
)
def test_a_correlated_normal_guide_finds_the_exact_posterior(problem: Problem, guide: Any) -> None:
    def exact(found: Tensor) -> list[str]:
        return misses(found, problem.exact())

    assert exact(fitted(problem, num_steps=0, guide=guide, factor_guide=guide))
    assert exact(fitted(problem))  # an independent guide does not fit
    assert exact(fitted(problem, guide=guide, factor_guide=guide, rank=2)) == []


def network(size: int) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    return ensemble(net, size, init="normal") if size > 1 else net


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(3)
    return torch.randn(count, 5, generator=source, dtype=torch.float64), torch.randint(3, (count,), generator=source)


def state_of(algorithm: SVI, size: int, priors: Any = None, num_data: int = 100) -> SVIState:
    def build() -> Model:
        return perturb(Model(network(size), priors=priors or {}).double())  # type: ignore[return-value]

    torch.manual_seed(1)
    state = algorithm.init(build, num_data, 10)
    for guide in state.each_guide:
        if isinstance(guide, MeanField):
            with torch.no_grad():
                guide.log_scale.normal_(-2, 0.3)
    return state


class Fixed(dist.Independent):  # type: ignore[misc]
    """A distribution whose draw is a given value."""

    def __init__(self, base: Any, events: int, value: Tensor) -> None:
        super().__init__(base, events)
        self.given = value

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        return self.given


def guide_by_site(state: SVIState, values: dict[str, Tensor]) -> Callable[..., None]:
    """Return the mean-field guide with a site per parameter, as in plain Pyro, that draws these values."""

    parts = {piece.name: (part, piece) for part in state.each_guide for piece in part.pieces}

    def guide(x: Tensor, y: Tensor) -> None:
        for latent in state.program.latents:
            part, piece = parts[latent.site.name]
            loc, scale = part.values(part.loc)[piece.name], part.values(part.scale)[piece.name]  # type: ignore[operator]
            with pyro.poutine.scale(scale=1 / piece.members):
                pyro.sample(piece.name, Fixed(dist.Normal(loc, scale), loc.ndim, values[piece.name]))

    return guide


def ascended(
    state: SVIState, seed: int = 5, kl_weight: float = 1.0
) -> tuple[tuple[Tensor, Tensor], dict[str, Tensor], list[Tensor | None]]:
    """Return the negative bound for 100 examples with its divergence, the drawn values, and the gradients."""
    torch.manual_seed(seed)
    numbers = [guide() for guide in state.each_guide]
    values: dict[str, Tensor] = {}
    for guide, z in zip(state.each_guide, numbers, strict=True):
        values |= guide.values(z)
    torch.manual_seed(seed)
    state.stepper.optimizer.zero_grad()
    weight = torch.tensor(kl_weight, dtype=torch.float64)
    terms, kl = state.bound.ascend(Batch(*batch()), weight, is_first=True)
    return (kl - 100 * terms.log_lik, kl), values, [parameter.grad for parameter in state.guides.parameters()]


@pytest.mark.parametrize("size", [1, 3])
def test_the_plain_bound_and_its_gradient_equal_those_of_pyro(size: int) -> None:
    state = state_of(SVI(), size)
    assert isinstance(state.bound, PlainBound)
    (ours, _), values, gradients = ascended(state)
    pyro.clear_param_store()
    program = pyro_model_of(state)
    loss = TraceMeanField_ELBO().differentiable_loss(program, guide_by_site(state, values), *batch())
    torch.testing.assert_close(ours, loss.detach(), rtol=1e-10, atol=1e-10)
    expected = torch.autograd.grad(loss / 100, list(state.guides.parameters()))
    assert len(gradients) == len(expected) == (2 if size == 1 else 6)
    for found, gradient in zip(gradients, expected, strict=True):
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("guide", "count"), [("normal", 6), ("low-rank", 9)])
def test_every_gradient_is_linear_in_the_kl_weight(guide: Any, count: int) -> None:
    """This includes the guide of the base weights and that of the factors, in the plain bound and in Pyro's."""
    state = state_of(SVI(guide=guide, factor_guide=guide, rank=2, initial_scale=0.1), 3)
    none, half, all_of_it = (ascended(state, kl_weight=weight)[2] for weight in (0.0, 0.5, 1.0))
    assert len(none) == count
    for one, between, other in zip(none, half, all_of_it, strict=True):
        assert (other - one).abs().max() > 1e-4  # type: ignore[operator]
        torch.testing.assert_close(between, (one + other) / 2, rtol=1e-9, atol=1e-12)  # type: ignore[operator]


def pyro_model_of(state: SVIState) -> Any:
    """Return the Pyro program of a state's model, with its latent parameters, which the state has frozen."""
    for latent in state.program.latents:
        state.model.get_parameter(latent.parameter).requires_grad_(True)
    program = pyro_model(state.model, 100)
    for latent in state.program.latents:
        state.model.get_parameter(latent.parameter).requires_grad_(False)
    return program


HEAVY = {
    "weight": dist.MixtureSameFamily(
        dist.Categorical(torch.tensor([0.3, 0.7])), dist.Normal(torch.zeros(2), torch.tensor([0.1, 1.0]))
    ),
    "bias": dist.Laplace(0.0, 1.0),
    "norm": dist.LogNormal(0.0, 0.5),
}


@QUICK
@pytest.mark.parametrize(
    ("guide", "size"),
    [("normal", 3), ("delta", 1), ("delta", 3), pytest.param("normal", 1, marks=pytest.mark.slow)],
)
def test_without_closed_forms_the_mean_bound_is_that_of_pyros_trace_elbo(size: int, guide: Any) -> None:
    factors = {"factor": dist.LogNormal(0.0, 0.2)} if size > 1 else {}
    state = state_of(SVI(guide=guide, factor_guide=guide), size, {**HEAVY, **factors})
    assert isinstance(state.bound, PlainBound)
    plain = []
    for seed in range(400 if guide == "normal" else 1):
        (bound, _), _, _ = ascended(state, seed)
        plain.append(float(bound))
    program = pyro_model_of(state)
    torch.manual_seed(0)
    traced = [float(Trace_ELBO().loss(program, lambda x, y: pyro_guide(state.each_guide), *batch())) for _ in plain]
    ours, theirs = torch.tensor(plain), torch.tensor(traced)
    if guide == "delta":
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
        return
    error = (ours.var() / len(ours) + theirs.var() / len(theirs)).sqrt()
    assert abs(ours.mean() - theirs.mean()) < 4 * error
    assert error < 0.02 * theirs.mean().abs()


@QUICK
def test_a_delta_guide_with_normal_priors_finds_the_posterior_mode() -> None:
    problem = PROBLEMS[3]
    algorithm = SVI(learning_rate=0.03, guide="delta", factor_guide="delta")
    state = fit_tensors(algorithm, problem.build({"factor": PRIORS["factor"]}), *data(), 1500)
    found = draws(partial(algorithm.draw, state), 2)
    assert torch.equal(found[0], found[1])
    assert (found[0] - problem.exact().mean).abs().max() < 1e-4


@QUICK
def test_a_hierarchical_scale_goes_through_pyro_and_is_learned() -> None:
    hierarchical = Hierarchical(dist.HalfCauchy(1.0), lambda scale, site: dist.Normal(0.0, scale))
    problem = PROBLEMS[0]
    algorithm = SVI(learning_rate=0.03, num_particles=4)
    state = fit_tensors(algorithm, problem.build({"base": hierarchical}), *data(), 400)
    assert isinstance(state.bound, PyroBound)
    names = [piece.name for guide in state.each_guide for piece in guide.pieces]
    assert names == ["weight_scale", "weight"]
    (guide,) = state.each_guide
    assert guide.values(guide.loc)["weight_scale"] > 0
    torch.manual_seed(0)
    marginal = hierarchical_posterior(problem)
    found = draws(partial(algorithm.draw, state), 400)
    assert ((found.mean(0) - marginal.mean).abs() / marginal.sd).max() < 0.35  # the posterior is skewed


def hierarchical_posterior(problem: Problem) -> Posterior:
    """Average the exact posteriors over a grid of scales, weighted by evidence and hyperprior."""
    x, y = data()
    scales = torch.linspace(0.05, 8, 400, dtype=torch.float64)
    logs, means, squares = [], [], []
    for scale in scales:
        covariance = scale**2 * x @ x.T + 0.25 * torch.eye(NUM_DATA, dtype=torch.float64)
        evidence = torch.distributions.MultivariateNormal(torch.zeros(NUM_DATA, dtype=torch.float64), covariance)
        logs.append(evidence.log_prob(y) + dist.HalfCauchy(1.0).log_prob(scale))
        precision = x.T @ x / 0.25 + torch.eye(3, dtype=torch.float64) / scale**2
        mean = torch.linalg.solve(precision, x.T @ y / 0.25)
        means.append(mean)
        squares.append(torch.linalg.inv(precision) + mean.outer(mean))
    weights = torch.stack(logs).softmax(0)
    mean = (weights[:, None] * torch.stack(means)).sum(0)
    second = (weights[:, None, None] * torch.stack(squares)).sum(0)
    return Posterior(mean[None], (second - mean.outer(mean))[None])


def test_pyros_parameter_store_stays_empty_and_models_are_independent() -> None:
    pyro.clear_param_store()
    alone = fit_tensors(SVI(), PROBLEMS[0].build(), *data(), 20)
    first, second = [SVI().init(PROBLEMS[0].build(), NUM_DATA, 20) for _ in range(2)]
    addresses = [{parameter.data_ptr() for parameter in state.guides.parameters()} for state in (first, second)]
    assert addresses[0].isdisjoint(addresses[1])
    fit_tensors(SVI(guide="full-rank"), PROBLEMS[0].build(), *data(), 20)
    again = fit_tensors(SVI(), PROBLEMS[0].build(), *data(), 20)
    assert torch.equal(alone.each_guide[0].loc, again.each_guide[0].loc)
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("size", [1, 3])
def test_training_does_not_change_the_priors(size: int) -> None:
    state = state_of(SVI(), size)
    before = [latent.prior.log_prob(torch.ones_like(latent.site.centre)).item() for latent in state.program.latents]  # type: ignore[union-attr]
    for _ in range(5):
        one_step(SVI(learning_rate=0.1), state, batch())
    after = [latent.prior.log_prob(torch.ones_like(latent.site.centre)).item() for latent in state.program.latents]  # type: ignore[union-attr]
    assert before == after


def test_factors_are_drawn_for_each_example() -> None:
    algorithm = SVI(draws="example", initial_scale=0.5)
    state = state_of(algorithm, 3)
    x = torch.ones(8, 5, dtype=torch.float64)
    seen: list[Tensor] = []
    handle = state.model.network.network[0].register_forward_hook(lambda layer, inputs, output: seen.append(output))  # type: ignore[index, union-attr]
    one_step(algorithm, state, (x, torch.zeros(8, dtype=torch.long)))
    handle.remove()
    (rows,) = seen
    distinct = rows.detach().unflatten(0, (3, 8))
    assert (distinct[:, 0] - distinct[:, 1]).abs().min() > 0  # although the examples are equal
    assert (distinct[0] - distinct[1]).abs().min() > 0


@QUICK
@pytest.mark.parametrize(
    "option",
    [
        "draws",
        *(pytest.param(o, marks=pytest.mark.slow) for o in ("local_reparametrization", "num_particles", "accumulate")),
    ],
)
def test_all_gradient_estimators_have_the_same_expectation(option: str) -> None:
    size = 3 if option == "draws" else 1
    value = {"draws": "example", "local_reparametrization": True, "num_particles": 4, "accumulate": 3}[option]

    def gradients(algorithm: SVI, count: int) -> Tensor:
        state = state_of(algorithm, size)
        state.model.eval()  # batch statistics differ for a part of a batch
        found = []
        for seed in range(count):
            torch.manual_seed(seed)
            state.stepper.optimizer.zero_grad()
            for draw in range(algorithm.num_particles):
                state.bound.ascend(Batch(*batch()), torch.ones((), dtype=torch.float64), draw == 0)
            grads = [parameter.grad.flatten() for parameter in state.guides.parameters()]  # type: ignore[union-attr]
            found.append(torch.cat(grads) / algorithm.num_particles)
        return torch.stack(found)

    plain, other = gradients(SVI(), 600), gradients(SVI(**{option: value}), 600)
    error = ((plain.var(0) + other.var(0)) / 600).sqrt()
    z = (plain.mean(0) - other.mean(0)) / error.clamp(min=1e-12)
    assert z.square().mean() < 1.6
    if option == "local_reparametrization":
        assert other.var(0).mean() < plain.var(0).mean()


def test_the_trained_model_has_the_centre_of_the_guide() -> None:
    algorithm = SVI(initial_scale=1e-9)
    state = fit_tensors(algorithm, PROBLEMS[3].build({"factor": PRIORS["factor"]}), *data(), 30)
    x = data()[0]
    torch.testing.assert_close(state.model(x), predict(algorithm, state, x)[0], rtol=1e-6, atol=1e-6)


@QUICK
def test_the_noise_of_the_likelihood_is_learned() -> None:
    def build() -> Model:
        return Model(nn.Linear(3, 1, bias=False), Gaussian(3.0, learned=True)).double()

    state = fit_tensors(SVI(learning_rate=0.05), build, *data(), 800)
    noise = state.model.likelihood.log_noise.detach().exp().item()
    assert 0.2 < noise < 1.0
    assert fit_tensors(MAP(learning_rate=0.01), build, *data(), 800).model.likelihood.log_noise < 0


@pytest.mark.parametrize(
    ("options", "priors", "message"),
    [
        ({"guide": "mean-field"}, {}, "unknown guide 'mean-field'"),
        ({}, {"head.*": None}, "the prior for 'head.*' matches no parameter: the trained parameters are"),
        (
            {"guide": "cauchy"},
            {"base": dist.LogNormal(0.0, 1.0)},
            "the guide 'cauchy' requires a prior on all real numbers",
        ),
        ({"guide": "cauchy"}, {}, "the divergence of a cauchy guide from the prior of weight is infinite"),
        ({}, {"base": dist.Bernoulli(0.5)}, "no guide supports the prior of weight"),
        ({}, {"base": None}, "no parameter of the model has a prior"),
        ({"draws": "example", "guide": "full-rank"}, {}, "require independent guides"),
        ({"local_reparametrization": True, "guide": "delta"}, {}, "and there are none"),
        ({"kl_warmup": 1.5}, {}, "kl_warmup must be a fraction of all steps"),
        ({"initial_scale": 0.0}, {}, "initial_scale must be positive"),
        ({"momentum": 1.0}, {}, "momentum must be at least 0 and below 1"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_and_priors_are_refused_in_one_line(options: dict[str, Any], priors: Any, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("*", r"\*")) as caught:
        SVI(**options).init(PROBLEMS[0].build(priors), NUM_DATA, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("guide", ["delta", "normal"])
def test_equal_members_without_their_own_noise_are_refused(guide: Any) -> None:
    def build() -> Model:
        return Model(ensemble(nn.Linear(5, 3), 3, "ones"), priors={"base": dist.Normal(0.0, 1.0), "member": None})

    algorithm = SVI(factor_guide=guide)
    if guide == "normal":
        algorithm.init(build, 100, 10)
        return
    with pytest.raises(InputError, match="all members are equal"):
        algorithm.init(build, 100, 10)
    SVI(factor_guide=guide, feed="split").init(build, 100, 10)


@pytest.mark.parametrize("weight", [0.0, 1e-9])
def test_pyros_bound_reports_the_divergence_for_any_kl_weight(weight: float) -> None:
    def kl(kl_weight: float) -> Tensor:
        algorithm = SVI(guide="low-rank", kl_weight=kl_weight, initial_scale=0.3)
        torch.manual_seed(0)
        state = algorithm.init(PROBLEMS[0].build(), NUM_DATA, 10)
        torch.manual_seed(0)
        return one_step(algorithm, state, data()).kl

    torch.testing.assert_close(kl(weight), kl(1.0))


@pytest.mark.parametrize("size", [1, 3])
def test_pyros_bound_and_the_plain_bound_have_the_same_mean_divergence(size: int) -> None:
    state = state_of(SVI(), size)
    (_, plain), _, _ = ascended(state)
    bound = PyroBound(state.program, state.each_guide, SVI().descent.steps, "to compare")
    found = []
    for seed in range(200):
        torch.manual_seed(seed)
        found.append(bound.ascend(Batch(*batch()), torch.ones((), dtype=torch.float64), is_first=False)[1])
    kl = torch.stack(found)
    error = kl.std() / 200**0.5
    assert abs(kl.mean() - plain) < 4 * error
    assert error < 0.05 * plain


def test_the_reason_for_going_through_pyro_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="bayes_share"):
        SVI().init(PROBLEMS[0].build(), NUM_DATA, 10)
        assert caplog.messages == []
        state = SVI(guide="full-rank").init(PROBLEMS[0].build(), NUM_DATA, 10)
        state.load_state_dict(state.state_dict())
        shared_scale = Hierarchical(dist.HalfCauchy(1.0), lambda scale, site: dist.Normal(0.0, scale))
        SVI().init(PROBLEMS[0].build({"base": shared_scale}), NUM_DATA, 10)
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "a guide is not normal, cauchy or delta",
        "priors depend on one another",
    ]


def test_draws_per_example_stay_in_the_support_of_their_members_prior() -> None:
    low = torch.tensor([[0.5], [1.5], [2.5]])
    algorithm = SVI(draws="example", initial_scale=0.5)
    state = state_of(algorithm, 3, {"factor": dist.Uniform(low, low + 1)})
    (guide,) = [guide for guide in state.each_guide if guide.of_factors]
    for value in guide.values(guide(rows=4)).values():
        inside = value.unflatten(0, (3, 4)) - low[:, None].double()
        assert 0 <= inside.min() < inside.max() <= 1
    info = one_step(algorithm, state, batch())
    assert bool(info.loss.isfinite())


def test_a_large_full_rank_guide_is_finite_in_single_precision() -> None:
    def build() -> Model:
        return Model(nn.Linear(150, 4))

    algorithm = SVI(guide="full-rank", learning_rate=0.01)
    x = torch.randn(30, 150, generator=torch.Generator().manual_seed(0))
    state = fit_tensors(algorithm, build, x, torch.arange(30) % 4, 8)
    assert all(bool(parameter.isfinite().all()) for parameter in state.guides.parameters())


def test_the_kl_weight_warms_up() -> None:
    algorithm = SVI(kl_weight=0.5, kl_warmup=0.4)
    assert [algorithm.kl_weight_at(step, 10) for step in range(6)] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert [SVI().kl_weight_at(step, 10) for step in (0, 9)] == [1.0, 1.0]
    state = state_of(algorithm, 3)
    for step in range(5):
        info = one_step(algorithm, state, batch())
        weight = algorithm.kl_weight_at(step, 10)
        torch.testing.assert_close(info.loss, weight * info.kl / 100 - info.log_lik)


@pytest.mark.parametrize("guide", ["normal", "low-rank"])
def test_several_particles_update_the_norm_statistics_once(guide: Any) -> None:
    algorithm = SVI(guide=guide, num_particles=3)
    state = state_of(algorithm, 1)
    one_step(algorithm, state, batch())
    assert state.model.get_buffer("network.1.num_batches_tracked").item() == 1


@pytest.mark.parametrize("guide", ["normal", "full-rank", "low-rank"])
def test_autocast_does_not_reduce_the_precision_of_guides_and_densities(guide: Any) -> None:
    def build() -> Model:
        return Model(network(3))

    def step(is_enabled: bool) -> Any:
        torch.manual_seed(0)
        algorithm = SVI(guide=guide, factor_guide=guide)
        state = algorithm.init(build, 100, 10)
        torch.manual_seed(0)
        x, y = batch()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_enabled):
            return one_step(algorithm, state, (x.float(), y))

    found, expected = step(True), step(False)
    torch.testing.assert_close(found.kl, expected.kl, rtol=1e-6, atol=1e-4)
    assert 0 < abs(found.log_lik - expected.log_lik) < 0.05


@pytest.mark.parametrize(("init", "is_said"), [("random_sign", True), (FactorInit("normal", sd=0.1), False)])
def test_initial_values_outside_the_support_of_their_prior_are_reported(
    init: Any, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    net = ensemble(nn.Linear(3, 2), 4, init)
    negative = sum(int((factor < 0).sum()) for factor in (net.network.r, net.network.s))
    SVI().init(lambda: Model(net, Gaussian(1.0), {"factor": dist.LogNormal(0.0, 0.5)}), 4, 1)
    said = [record.getMessage() for record in caplog.records]
    expected = f"{negative} of 20 initial values of r, s are outside the support of their prior, and were moved into it"
    assert [expected in line for line in said] == [True] * is_said


@pytest.mark.parametrize("guide", ["normal", "low-rank"])
@pytest.mark.parametrize("option", ["num_particles", "accumulate"])
def test_without_noise_particles_and_parts_of_a_batch_do_not_change_a_step(option: str, guide: Any) -> None:
    """Gradients are averaged over particles, and the divergence counts once. SGD, since Adam has no scale."""

    def step(**options: Any) -> tuple[Any, Tensor]:
        algorithm = SVI(optimizer="sgd", momentum=0.0, learning_rate=1e-3, guide=guide, initial_scale=1e-9, **options)
        torch.manual_seed(0)
        state = algorithm.init(lambda: Model(nn.Linear(5, 3)).double(), 20, 10)
        info = one_step(algorithm, state, batch())
        (guide_of_weights,) = state.each_guide
        return info, guide_of_weights.loc.detach()

    (expected, loc), (found, found_loc) = step(), step(**{option: 3})
    torch.testing.assert_close(found_loc, loc, rtol=1e-6, atol=1e-9)
    for name in ("loss", "log_lik"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0.05, atol=1e-7)


def test_the_guides_of_factors_have_their_own_learning_rate() -> None:
    """The first step of Adam is as long as the learning rate."""
    algorithm = SVI(learning_rate=1e-3, factor_rate=0.2, schedule="constant")
    state = state_of(algorithm, 3)
    before = [guide.loc.detach().clone() for guide in state.each_guide]
    one_step(algorithm, state, batch())
    assert {guide.of_factors for guide in state.each_guide} == {False, True}
    for guide, start in zip(state.each_guide, before, strict=True):
        step = (guide.loc - start).abs().median().item()
        assert step == pytest.approx(2e-4 if guide.of_factors else 1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Linear(4, 3), (4,)), (nn.Conv2d(2, 3, 2, stride=2, padding=1, bias=False), (2, 3, 3))]
)
def test_local_reparametrization_draws_outputs_of_the_variance_of_squared_inputs(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    """y ~ N(x μ, x² σ²), independent for each example and output, here of 20,000 equal examples."""
    count = 20_000
    model = Model(layer).double()
    mean = layer.weight.detach()
    scale = torch.rand(mean.shape, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    bias = None if layer.bias is None else layer.bias.detach()
    plain = copy.deepcopy(layer)
    plain.weight.data = scale.square()
    with torch.no_grad():
        variance = plain(x.square()[None]).flatten() - (0 if bias is None else bias)
        with drawing_outputs(model, {"network.weight": layer}) as drawing:
            values = {"network.weight": mean}
            found = drawing.forward_with(values, {"network.weight": scale}, x.expand(count, *shape), "tile")[0]
        expected = layer(x[None]).flatten()
    found = found.flatten(1)
    sd = variance.sqrt()
    assert ((found.mean(0) - expected) / sd).abs().max() < 5 / count**0.5
    correlations = (found.T.cov() / sd.outer(sd)) - torch.eye(len(sd))
    assert correlations.abs().max() < 5 * 2**0.5 / count**0.5
