"""`posterior_samples`: the parameters that predict, under the user's names, with the moments of the posterior."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from algorithms import CASES, FORMS, Case, case_training, digits, form_builder, trained
from pyro import distributions as dist
from regression import NUM_DATA, PRIOR_SD, PROBLEMS, data, misses, misses_of_chain
from states import through_bytes
from thinned import thinned
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SVI,
    SWAG,
    DeepEnsemble,
    LastLayerLaplace,
    MCDropout,
    chain_order,
    fit_tensors,
    posterior_samples,
    predict,
)
from bayes_share.inference.algorithm import Forward
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.priors import Hierarchical
from bayes_share.sharing import ensemble, fold
from bayes_share.sharing.member_networks import under_all_names

POINT_ESTIMATES = ("map", "mc-dropout", "deep-ensemble", "distill")
DRAWING = {name: case for name, case in CASES.items() if name not in POINT_ESTIMATES}
DRAWING["distilled svi"] = Case(replace(CASES["distill"].algorithm, of=CASES["svi"].algorithm))
DRAWING["nuts, 2 chains"] = Case(NUTS(max_tree_depth=2, chains=2), networks=2, batch_size=240, widths=(16,))
DRAWING |= {
    f"deep ensemble of {name}": Case(DeepEnsemble(of=CASES[name].algorithm, networks=2), networks=2)
    for name in ("svi", "laplace")
}


def images() -> Tensor:
    data = digits()
    return data.normalise(data.test.images[:20])


def outputs(forward: Forward, values: dict[str, Tensor]) -> Tensor:
    """Return the outputs of a draw's networks with one draw of `posterior_samples`, by `functional_call`."""
    found, first, is_one = [], 0, len(forward.parts) == 1
    for part in forward.parts:
        model, size = part.model.eval(), part.model.ensemble_size
        own = {name: value if is_one else value[first : first + size] for name, value in values.items()}
        is_ensemble = hasattr(model.network, "ensemble_size")
        if part.used:
            for member in range(size):
                net = fold(model.network, member if is_ensemble else None).eval()
                used = {name: value[member] if is_ensemble or not is_one else value for name, value in own.items()}
                found.append(torch.func.functional_call(net, used, (images(),))[None])
        else:
            prefix = "network.network." if is_ensemble else "network."
            by_name = {name.removeprefix(prefix): p for name, p in model.named_parameters()}
            shaped = {
                name: value if is_one or value.shape == by_name[name].shape else value[0] for name, value in own.items()
            }
            named = {f"{prefix}{name}".removeprefix("network."): value for name, value in shaped.items()}
            everywhere = under_all_names(model.network, named)  # functional_call mishandles a module in two places
            called = torch.func.functional_call(model.network, everywhere, (images(),), tie_weights=False)
            found.append(called if is_ensemble else called[None])
        first += size
    return torch.cat(found)


@pytest.mark.parametrize(
    ("form", "name"),
    thinned(
        lambda form, name: form != "shared weight" or ("deep" not in name and "chains" not in name),
        ["single", "ensemble", "shared weight"],
        [*DRAWING],
    ),
)
def test_samples_are_the_parameters_that_predict(name: str, form: str) -> None:
    case = DRAWING[name]
    run = trained(case_training(case, form_builder(case, FORMS[form], norm="none"), digits(), 2))
    expected = predict(case.algorithm, run.state, images(), 3)
    samples = posterior_samples(case.algorithm, run.state, 3)
    for draw in range(3):
        values = {name: value[draw] for name, value in samples.items()}
        forward = case.algorithm.draw(run.state, draw)
        torch.testing.assert_close(outputs(forward, values).detach(), expected[draw], rtol=1e-4, atol=1e-4)
        assert (
            outputs(forward, {name: 0.5 * value for name, value in values.items()}) - expected[draw]
        ).abs().max() > 0.01


def small(size: int = 1) -> Model:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return Model(ensemble(net, size, init="normal") if size > 1 else net)


X, Y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2

SHARED = {"0.weight": [4, 3], "2.weight": [2, 4]}
OWN = {"0.bias": [4], "2.bias": [2]}
FACTORS = {"0.r": [3], "0.s": [4], "2.r": [4], "2.s": [2]}
LAST = ("2.weight", "2.bias")


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    ("algorithm", "networks", "is_shared"),
    [
        (SVI(), 1, True),
        (IVON(), 1, True),
        (SWAG(), 1, True),
        (SGHMC(), 1, True),
        (NUTS(max_tree_depth=1), 1, False),
        (NUTS(max_tree_depth=1, chains=2), 2, False),
        (DeepEnsemble(of=SVI(), networks=2), 2, False),
        (LastLayerLaplace(), 1, False),
        (DeepEnsemble(of=LastLayerLaplace(), networks=2), 2, False),
    ],
    ids=str,
)
def test_samples_have_the_expected_names_and_shapes(
    algorithm: Any, networks: int, is_shared: bool, members: int
) -> None:
    samples = posterior_samples(algorithm, fit_tensors(algorithm, lambda: small(members), X, Y, 10), 2)
    axis = [networks * members] if networks * members > 1 else []
    expected = {name: [2, *([] if is_shared else axis), *shape] for name, shape in SHARED.items()}
    expected |= {name: [2, *axis, *shape] for name, shape in OWN.items()}
    expected |= {name: [2, *axis, *shape] for name, shape in FACTORS.items() if members > 1}
    if "Laplace" in str(algorithm):
        expected = {name: expected[name] for name in LAST}
    assert {name: list(values.shape) for name, values in samples.items()} == expected
    for values in samples.values():
        assert not values.requires_grad
        assert networks > 1 or not torch.equal(values[0], values[1]) or isinstance(algorithm, NUTS)


def test_names_selects_the_returned_samples() -> None:
    state = fit_tensors(IVON(), small(3), X, Y, 2)
    everything = posterior_samples(IVON(), state, 2)
    for names in ("*.weight", lambda name: name.endswith("weight")):
        found = posterior_samples(IVON(), state, 2, names)
        assert list(found) == ["0.weight", "2.weight"]
        assert all(torch.equal(values, everything[name]) for name, values in found.items())
    with pytest.raises(InputError, match=r"^names='layer' matches no parameter: choose from 0\.weight, "):
        posterior_samples(IVON(), state, 2, "layer")


@pytest.mark.parametrize("algorithm", [MAP(), MCDropout(), DeepEnsemble(networks=2)])
def test_algorithms_without_draws_of_parameters_are_refused(algorithm: Any) -> None:
    state = fit_tensors(algorithm, small, X, Y, 1)
    message = f"^this state of {type(algorithm).__name__} has no draws of parameters: {algorithm.not_drawn()}$"
    with pytest.raises(InputError, match=message):
        posterior_samples(algorithm, state, 2)
    with pytest.raises(InputError, match="number of draws must be at least 1, not 0"):
        posterior_samples(algorithm, state, 0)


@pytest.mark.parametrize("algorithm", [SWAG(), SGHMC(), NUTS(), LastLayerLaplace()])
def test_an_untrained_state_without_draws_is_refused(algorithm: Any) -> None:
    with pytest.raises(InputError, match="it has draws only after training"):
        posterior_samples(algorithm, fit_tensors(algorithm, small, X, Y, 0), 1) if isinstance(
            algorithm, SWAG | SGHMC | NUTS
        ) else posterior_samples(algorithm, algorithm.init(small, 12, 1), 1)


COUNT = 1000


def scores(values: Tensor, mean: Tensor, sd: Tensor) -> float:
    """Return the largest error of means and standard deviations of independent normal draws, in standard errors."""
    of_mean = (values.mean(0) - mean) / sd * len(values) ** 0.5
    of_sd = (values.std(0) / sd - 1) * (2 * len(values)) ** 0.5
    return max(of_mean.abs().max().item(), of_sd.abs().max().item())


def test_svi_samples_have_the_moments_of_the_guide() -> None:
    """Real parameters are normal, and the logs of positive parameters are normal."""
    model = small(3)
    model.priors = {"factor": dist.LogNormal(0.0, 0.2), "likelihood": dist.Normal(0.0, 1.0)}
    model.likelihood = Gaussian(0.3, learned=True)
    algorithm = SVI(initial_scale=0.1, learning_rate=0.01)
    state = fit_tensors(algorithm, model, X, X[:, :2], 30)
    samples = posterior_samples(algorithm, state, COUNT)
    assert "likelihood.log_noise" in samples
    for guide in state.each_guide:
        for piece, loc, scale in zip(
            guide.pieces, guide.loc.split(guide.sizes, 1), guide.scale.split(guide.sizes, 1), strict=True
        ):
            values = samples[piece.name]
            assert piece.is_real or (values > 0).all()
            free = values if piece.is_real else values.log()
            moments = [part.detach().reshape(values.shape[1:]) for part in (loc, scale)]
            assert scores(free, *moments) < 5
    assert samples["0.r"].shape == (COUNT, 3, 3)


def test_ivon_samples_have_the_mean_and_standard_deviation_of_the_posterior() -> None:
    algorithm = IVON(hess_init=0.1)
    state = fit_tensors(algorithm, small(3), X, Y, 30)
    samples = posterior_samples(algorithm, state, COUNT)
    for name, parameter in state.model.network.network.named_parameters():
        assert scores(samples[name], parameter.detach(), state.optimizer.sd(parameter)) < 5


def test_swag_samples_have_half_the_diagonal_and_half_the_low_rank_variance() -> None:
    algorithm = SWAG(learning_rate=0.05, num_snapshots=8, rank=4)
    state = fit_tensors(algorithm, small(), X, Y, 40)
    samples = posterior_samples(algorithm, state, COUNT)
    moments = state.moments
    for name, values in samples.items():
        diagonal = moments.squares[f"network.{name}"] / moments.count
        low_rank = torch.stack([column[f"network.{name}"].square() for column in moments.deviations]).sum(0) / 3
        assert scores(values, moments.mean[f"network.{name}"], ((diagonal + low_rank) / 2).sqrt()) < 5


def test_laplace_samples_have_the_exact_posterior_of_a_linear_regression() -> None:
    weight_decay = 1 / (PRIOR_SD["base"] ** 2 * NUM_DATA)
    algorithm = LastLayerLaplace(
        learning_rate=0.02, schedule="constant", weight_decay=weight_decay, prior_precision=None, structure="full"
    )
    problem = PROBLEMS[0]
    found = posterior_samples(algorithm, fit_tensors(algorithm, problem.build(), *data(), 300), COUNT)["weight"]
    assert found.shape == (COUNT, 1, 3)
    assert misses(found, problem.exact(), mean=0.0, sd=0.0) == []
    assert misses(found + problem.exact().sd, problem.exact())


@pytest.mark.usefixtures("unchecked")
def test_nuts_samples_are_the_kept_draws_in_the_order_of_the_chain() -> None:
    problem, algorithm = PROBLEMS[0], NUTS(warmup=0.25, keep=120, max_tree_depth=3)
    state = fit_tensors(algorithm, problem.build(problem.priors()), *data(), 160)
    found = posterior_samples(algorithm, state, 150)["weight"][chain_order(state.num_kept, 150)]
    kept = torch.stack([draw["network.weight"] for draw in state.chains[0].kept])
    assert torch.equal(found, kept)
    assert misses_of_chain(found, problem.exact()) == []


def shared_scale() -> dict[str, Any]:
    return {"weight": Hierarchical(dist.LogNormal(0.0, 1.0), lambda scale, site: dist.Normal(0 * scale, scale))}


POINTS = torch.tensor([[0.5], [1.0], [-1.0]], dtype=torch.float64)


def log_scale_moments() -> tuple[float, float]:
    """Return mean and sd of log s given y = 2 x + noise of 0.5, with w ~ N(0, s²), log s ~ N(0, 1), by quadrature."""
    variance = 0.25 / POINTS.square().sum()
    log_scale = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    log_density = dist.Normal(0.0, 1.0).log_prob(log_scale)
    log_density = log_density + dist.Normal(0.0, (log_scale.mul(2).exp() + variance).sqrt()).log_prob(torch.tensor(2.0))
    weights = log_density.softmax(0)
    mean = (weights * log_scale).sum()
    return mean.item(), (weights * (log_scale - mean).square()).sum().sqrt().item()


@pytest.mark.usefixtures("unchecked")
def test_nuts_samples_the_scale_of_a_hierarchical_prior() -> None:
    from pyro.ops.stats import effective_sample_size

    algorithm = NUTS(warmup=0.3, keep=210, max_tree_depth=3)
    model = Model(nn.Linear(1, 1, bias=False), Gaussian(0.5), shared_scale()).double()
    state = fit_tensors(algorithm, model, POINTS, 2 * POINTS, 300)
    samples = posterior_samples(algorithm, state, 210)
    assert {name: list(values.shape) for name, values in samples.items()} == {
        "weight": [210, 1, 1],
        "weight_scale": [210],
    }
    log_scale = samples["weight_scale"].log()[chain_order(210, 210)]
    mean, sd = log_scale_moments()
    for values, expected, deviation in (
        (log_scale, mean, sd),
        ((log_scale - mean).square(), sd**2, 2**0.5 * sd**2),
    ):
        error = deviation / effective_sample_size(values[None], 0, 1).sqrt()
        assert abs(values.mean() - expected) < 4 * error
    assert abs(mean) > 0.3  # the prior mean is 0


def test_hierarchical_scales_are_saved_and_older_checkpoints_are_read() -> None:
    algorithm = NUTS(warmup=0.5, keep=4, max_tree_depth=2)

    def build() -> Model:
        return Model(nn.Linear(1, 1), Gaussian(0.5), shared_scale()).double()

    state = fit_tensors(algorithm, build, POINTS, 2 * POINTS, 8)
    saved = through_bytes(state.state_dict())
    other = algorithm.init(build, 3, 8)
    other.load_state_dict(saved)
    before, after = (posterior_samples(algorithm, one, 4) for one in (state, other))
    assert list(before) == ["weight", "bias", "weight_scale"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    for draw in saved["chains"][0]["kept"][1:]:
        del draw["weight_scale"]  # as in older checkpoints
    other.load_state_dict(saved)
    assert list(posterior_samples(algorithm, other, 4)) == ["weight", "bias"]
    expected = predict(algorithm, state, POINTS, 4)
    assert torch.equal(predict(algorithm, other, POINTS, 4), expected)


def test_svi_samples_correlate_scales_with_weights() -> None:
    """A full-rank guide draws the two jointly: large scales go with large weights."""
    algorithm = SVI(guide="full-rank", initial_scale=0.3)
    model = Model(nn.Linear(1, 1, bias=False), Gaussian(0.5), shared_scale()).double()
    state = fit_tensors(algorithm, model, POINTS, 2 * POINTS, 10)
    (guide,) = state.each_guide
    with torch.no_grad():
        guide.factor.add_(0.7)
    samples = posterior_samples(algorithm, state, COUNT)
    said = guide.distribution()
    covariance = said.base_dist.transforms[0].tril.detach()  # type: ignore[union-attr]
    covariance = (covariance @ covariance.mT)[0]
    free = torch.stack([samples["weight_scale"].log(), samples["weight"].flatten()])
    assert [piece.name for piece in guide.pieces] == ["weight_scale", "weight"]
    sd = covariance.diagonal().sqrt()
    error = (sd.outer(sd).square() + covariance.square()).sqrt() / COUNT**0.5
    assert ((free.cov() - covariance).abs() / error).max() < 4.5
    assert abs(covariance[0, 1]) > 4 * error[0, 1]


@pytest.mark.usefixtures("unchecked")
def test_models_and_states_of_another_algorithm_are_refused() -> None:
    model = Model(nn.Linear(1, 1), Gaussian(0.5))
    with pytest.raises(InputError, match="prediction requires the state that fit returns, not Model"):
        posterior_samples(NUTS(), model)
    state = fit_tensors(MAP(), model, torch.randn(8, 1), torch.randn(8, 1), 1)
    with pytest.raises(InputError, match="pass the algorithm that the state was trained with"):
        posterior_samples(IVON(), state)
