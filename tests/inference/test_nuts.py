"""NUTS: the exact posterior of every member, resuming after any transition, and what is refused."""

import itertools
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from regression import EACH, Problem, chain_order, data, draws, misses_of_chain
from states import differences, through_bytes
from torch import nn

from bayes_share.errors import InputError
from bayes_share.inference import NUTS, fit_tensors
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.draws.thinning import Thinning, spread
from bayes_share.inference.step.drivers import step as one_step
from bayes_share.inference.step.drivers import take_step
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.priors import Hierarchical
from bayes_share.sharing import ensemble
from bayes_share.tensors.seeding import seeded

STEPS, KEPT = 160, 120
SAMPLER = NUTS(warmup=0.25, keep=KEPT, max_tree_depth=3)


@EACH
def test_every_member_has_its_exact_posterior(problem: Problem, unchecked: None) -> None:
    expected = problem.exact(is_shared=False)
    build = problem.build(problem.priors())
    untrained = SAMPLER.init(build, 10, STEPS)
    assert misses_of_chain(draws(partial(SAMPLER.draw, untrained), 50), expected)
    prior = problem.prior()
    normal = torch.randn(KEPT, *prior.mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert misses_of_chain(prior.mean + prior.sd * normal, expected)
    state = fit_tensors(SAMPLER, build, *data(), STEPS)
    found = draws(partial(SAMPLER.draw, state), KEPT)[chain_order(KEPT)]
    assert misses_of_chain(found, expected) == []
    if problem.members > 1 and problem.unknown == "base":
        assert misses_of_chain(found, problem.exact())  # a shared weight has another posterior


def network(dtype: torch.dtype = torch.float64) -> Model:
    """Return a network with a hierarchical prior on the first layer and positive weights in the last."""
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Dropout(0.5), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[3].weight.abs_()
    hierarchical = Hierarchical(dist.HalfCauchy(1.0), lambda scale, site: dist.Normal(torch.zeros_like(scale), scale))
    return Model(net, Gaussian(0.5), {"0.*": hierarchical, "3.weight": dist.LogNormal(0.0, 1.0)}).to(dtype)


def steps(algorithm: NUTS, state: Any, numbers: range) -> None:
    for step in numbers:
        with seeded("step", step):
            take_step(algorithm, state, data(), step)


def test_a_chain_resumes_bit_for_bit_after_any_transition() -> None:
    algorithm = NUTS(chains=2, warmup=0.75, keep=4, max_tree_depth=3)  # adapts the mass matrix twice

    def fresh(seed: int) -> Any:
        with seeded(seed):
            return algorithm.init(network, 10, 40)

    whole, saved = fresh(0), []
    for step in range(40):
        saved.append(through_bytes(whole.state_dict()))
        steps(algorithm, whole, range(step, step + 1))
    schedule = whole.chains[0]._kernel._adapter.adaptation_schedule
    assert len(schedule) >= 3
    for step in (0, 1, 2, 7, schedule[1].end - 1, schedule[1].end, schedule[1].end + 1, 28, 29, 30, 31, 39):
        other = fresh(9)
        other.load_state_dict(saved[step])
        torch.randn(2)
        assert differences(saved[step], other.state_dict()) == []
        steps(algorithm, other, range(step, min(40, step + 3)))
        expected = saved[step + 3] if step + 3 < 40 else whole.state_dict()
        assert differences(expected, other.state_dict()) == [], f"after {step} transitions"
    forgotten = through_bytes(saved[10])
    for chain in forgotten["chains"]:
        chain["adaptation"]["averaging"]["_g_avg"] = 0.0
    other = fresh(9)
    other.load_state_dict(forgotten)
    steps(algorithm, other, range(10, 13))
    assert differences(saved[13], other.state_dict())


def test_pyros_validation_settings_and_parameter_store_are_unchanged() -> None:
    def validation() -> list[bool]:
        return [part.is_validation_enabled() for part in (pyro.infer, pyro.distributions, pyro.poutine)]

    before = validation()
    algorithm = NUTS(max_tree_depth=2)
    state = algorithm.init(network, 10, 5)
    steps(algorithm, state, range(5))
    algorithm.draw(state, 0)(data()[0])
    assert dict(pyro.get_param_store()) == {}
    assert validation() == before == [True] * 3


def test_hierarchical_and_positive_priors_are_sampled() -> None:
    algorithm = NUTS(max_tree_depth=3, keep=5)
    state = algorithm.init(network, 10, 20)
    steps(algorithm, state, range(20))
    (chain,) = state.chains
    assert set(chain.position) == {"0.weight_scale", "0.weight", "0.bias", "3.weight"}
    assert len(chain.kept) == 5
    assert all((draw["network.3.weight"] > 0).all() for draw in chain.kept)


def test_each_member_of_each_chain_is_a_separate_network() -> None:
    built = []

    def build() -> Model:
        built.append(Model(ensemble(nn.Linear(3, 1), 2, init="normal"), Gaussian(0.5)).double())
        return built[-1]

    state = NUTS(chains=3).init(build, 10, 10)
    assert len(built) == 3
    assert len(state.chains) == 6
    x, y = data()
    found = NUTS().draw(state, 0)(x)
    assert found.shape == (6, 10, 1)
    for number, model in enumerate(built):
        torch.testing.assert_close(found[2 * number : 2 * number + 2], model(x).detach(), rtol=1e-12, atol=1e-12)
    weights = [chain.model.network.network.weight for chain in state.chains]
    assert len({weight.data_ptr() for weight in weights}) == 6
    info = one_step(NUTS(max_tree_depth=2), state, (x, y))
    assert state.num_parameters == 6 * (3 + 3 + 1 + 1)
    log_liks = [chain.model.likelihood.log_lik(chain.model(x), y[None]).mean() for chain in state.chains]
    torch.testing.assert_close(info.log_lik, torch.stack(log_liks).mean().detach())
    potentials = []
    for chain in state.chains:
        priors = sum(
            latent.prior.log_prob(dict(chain.model.named_parameters())[latent.parameter])  # type: ignore
            for latent in chain._program.latents
        )
        potentials.append(-priors - 10 * chain.model.likelihood.log_lik(chain.model(x), y[None]).mean())
    torch.testing.assert_close(info.loss, torch.stack(potentials).mean().detach() / 10)


def plain(*layers: nn.Module, priors: Any = None) -> Model:
    return Model(nn.Sequential(nn.Linear(3, 2), *layers), Gaussian(1.0), priors or {}).double()


def test_a_chain_that_never_moved_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    algorithm = NUTS(chains=2, warmup=0.5, keep=3, max_tree_depth=3)
    state = fit_tensors(algorithm, network, *data(), 12)
    assert not caplog.messages
    stuck = state.chains[1]
    stuck.kept = [stuck.kept[0]] * 3
    algorithm.finish(state, [])
    assert "are equal in chain 1 of 2" in caplog.messages[0]


def test_a_batch_with_example_weights_is_refused() -> None:
    algorithm, (x, y) = NUTS(), data()
    with pytest.raises(InputError, match="nuts does not support example weights, and the batch has weights"):
        one_step(algorithm, algorithm.init(network, len(x), 3), Batch(x, y, torch.ones(len(x))))


def test_a_batch_smaller_than_the_data_is_refused() -> None:
    with pytest.raises(InputError, match="nuts requires all 10 examples in every step, and the batch has 5: set batch"):
        fit_tensors(NUTS(), network, *data(), 4, batch_size=5)


def test_networks_that_cannot_be_sampled_are_refused() -> None:
    with pytest.raises(InputError, match="outputs that do not depend on the other examples, and 1 is a batch norm"):
        NUTS().init(lambda: plain(nn.BatchNorm1d(2)), 10, 4)
    own = ensemble(plain(nn.BatchNorm1d(2)).network, 2, norm="member", init="normal")
    with pytest.raises(InputError, match=r"network\.1 is a batch norm"):
        NUTS().init(lambda: Model(own), 10, 4)
    with pytest.raises(
        InputError, match=r"network\.0\.bias has no prior, and nuts requires one on every trained parameter"
    ):
        NUTS().init(lambda: plain(priors={"bias": None}), 10, 4)
    with pytest.raises(InputError, match=r"the initial value of 0\.weight is outside the support of its prior"):
        NUTS().init(lambda: plain(priors={"weight": dist.LogNormal(0.0, 1.0)}), 10, 4)


def test_a_too_large_network_is_refused_with_an_estimate_of_the_time() -> None:
    algorithm = NUTS(max_parameters=7, max_tree_depth=20, chains=2)
    state = algorithm.init(network, 10, 4)
    before = through_bytes(state.state_dict())
    message = (
        r"up to 7 sampled parameters \(max_parameters\), and this one has 10: a step, with up to 1,048,575 "
        r"gradients per chain, would take about \d+ (minute|hour)s?; use sghmc"
    )
    with pytest.raises(InputError, match=message):
        algorithm.check(state, Batch(*data()))
    assert differences(before, state.state_dict()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chains": 0}, "chains must be at least 1, and is 0"),
        ({"max_tree_depth": 0}, "max_tree_depth must be at least 1"),
        ({"max_parameters": 0}, "max_parameters must be at least 1"),
        ({"target_accept": 1.0}, "target_accept must be between 0 and 1, and is 1.0"),
        ({"warmup": 1.0}, "warmup must be a fraction of all steps"),
        ({"keep": 0}, "keep must be at least 1"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NUTS(**options)


@pytest.mark.parametrize(("num_steps", "skipped", "keep"), [(100, 0.3, 7), (10, 0.0, 10), (10, 0.5, 50), (1, 0.9, 3)])
def test_kept_steps_are_evenly_spaced_and_include_the_last(num_steps: int, skipped: float, keep: int) -> None:
    thinning = Thinning(num_steps, skipped, keep)
    kept = [step for step in range(num_steps) if thinning.keeps(step)]
    assert len(kept) == min(keep, num_steps - thinning.first)
    assert kept[-1] == num_steps - 1
    assert kept[0] >= thinning.first
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("count", [1, 2, 7, 32])
def test_spread_gives_each_draw_once_the_latest_first_and_spaced_apart(count: int) -> None:
    numbers = [spread(range(count), sample) for sample in range(2 * count)]
    assert sorted(numbers[:count]) == list(range(count))
    assert numbers[count:] == numbers[:count]
    assert numbers[0] == count - 1
    if count == 32:
        assert sorted(numbers[:4]) == [7, 15, 23, 31]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_examples_may_change_their_order_between_steps_but_not_their_values(dtype: torch.dtype) -> None:
    x, y = (tensor.to(dtype) for tensor in data())
    algorithm = NUTS(max_tree_depth=3)
    state = algorithm.init(lambda: network(dtype), 10, 8)
    for step in range(4):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))
        take_step(algorithm, state, (x[order], y[order]), step)
    with pytest.raises(InputError, match=r"the energy of its position changed .* data without augmentation"):
        take_step(algorithm, state, (x + 0.01 * torch.randn(x.shape, dtype=dtype), y), 4)
