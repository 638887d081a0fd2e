"""IVON as an algorithm: the prior of each kind of parameter, its options, and frozen parameters."""

from typing import Any

import pytest
import torch
from explicit import close, perturb
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from bayes_share.errors import InputError
from bayes_share.inference import IVON, Build
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.ivon.ivon import IVONState
from bayes_share.inference.methods.ivon.optimizer import IVONOptimizer
from bayes_share.inference.step.drivers import step as one_step
from bayes_share.layers.norm import FilterResponseNorm2d
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble
from bayes_share.sharing.kinds import parameter_kinds
from bayes_share.tensors.seeding import seeded

NUM_DATA = 100


def builder(size: int = 3, norm: str = "member") -> Build:
    def build() -> Model:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Tanh(), nn.Linear(8, 4))
        model = Model(ensemble(net, size, "normal", norm) if size > 1 else net)
        return perturb(model.double())  # type: ignore[return-value]

    return build


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (12,), generator=generator)


def steps(algorithm: IVON, build: Build, count: int = 3) -> tuple[IVONState, list[Any]]:
    state, infos = algorithm.init(build, NUM_DATA, count), []
    for step in range(count):
        with seeded("step", step):
            infos.append(one_step(algorithm, state, batch()))
    return state, infos


def priors(state: IVONState) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean and standard deviation of each parameter's prior in the optimizer."""
    found = {}
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    for group in state.optimizer.param_groups:
        sd = (group["ess"] * group["weight_decay"]) ** -0.5
        for p in group["params"]:
            centre = state.optimizer.state[p].get("centre")
            mean = torch.full_like(p, group["centre"]) if centre is None else centre
            found[names[p]] = (mean.detach(), torch.full_like(p, sd).detach())
    return found


def test_every_kind_of_parameter_has_its_prior_and_initial_posterior() -> None:
    algorithm = IVON(weight_decay=0.04, factor_decay=0.25, norm_centre=1.0, hess_init=0.6, factor_hess_init=1.5)
    state = algorithm.init(builder(), NUM_DATA, 1)
    kinds, found = parameter_kinds(state.model), priors(state)
    assert set(kinds.values()) == {"base", "member", "factor"}
    assert set(found) == set(kinds)
    for name, p in state.model.named_parameters():
        mean, sd = found[name]
        is_factor = kinds[name] == "factor"
        decay, hess = (0.25, 1.5) if is_factor else (0.04, 0.6)
        expected = p.detach().sign() if is_factor else torch.full_like(p, float(name.endswith("1.weight")))
        assert torch.equal(mean, expected)
        close(sd, torch.full_like(p, (NUM_DATA * decay) ** -0.5).detach(), 1e-12)
        # as in a single network, whatever the number of members
        close(state.optimizer.sd(p), torch.full_like(p, (NUM_DATA * (hess + decay)) ** -0.5).detach(), 1e-12)
    assert {name for name, (mean, _) in found.items() if name.endswith("1.weight") and bool((mean == 1).all())}


def test_norm_centre_applies_to_the_scales_of_filter_response_norm() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), FilterResponseNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 3, 8, 8))
    found = priors(IVON(norm_centre=1.0).init(lambda: Model(net), NUM_DATA, 1))
    assert {name for name, (mean, _) in found.items() if bool((mean == 1).all())} == {"network.1.weight"}


def test_member_parameters_learn_as_in_a_single_network() -> None:
    """The mean loss over M members divides a member's gradient by M. Its parameter group corrects the posterior for it.

    A step is divided by M, as with plain gradient descent, so the learning rate is multiplied by M here.
    """
    found = []
    for members in (1, 4):
        p = nn.Parameter(torch.linspace(-1, 1, 5, dtype=torch.float64))
        optimizer = IVONOptimizer(
            [p], 0.1 * members, 50.0 * members, hess_init=0.5 / members, weight_decay=0.1 / members, beta2=0.9
        )
        for step in range(20):
            torch.manual_seed(step)
            with optimizer.sampled_params(train=True):
                ((p - 0.3) ** 4 + p**2).sum().div(members).backward()
            optimizer.step()
        found.append(torch.cat([p.detach(), optimizer.sd(p)]))
    close(found[0], found[1], 1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_the_divergence_counts_shared_parameters_once_and_averages_the_members(size: int) -> None:
    algorithm = IVON(weight_decay=0.04, factor_decay=0.25, beta2=0.9)
    before = algorithm.init(builder(size), NUM_DATA, 3)
    state, _ = steps(algorithm, builder(size))
    kinds, found = parameter_kinds(state.model), priors(before)
    expected = torch.zeros((), dtype=torch.float64)
    for name, p in state.model.named_parameters():
        kl = kl_divergence(Normal(p.detach(), state.optimizer.sd(p)), Normal(*found[name])).sum()
        expected += kl / (1 if kinds[name] == "base" else size)
    close(algorithm.gradient(state, Batch(*batch())).kl, expected, 1e-10)  # before the step
    assert float(steps(IVON(weight_decay=0.0, factor_decay=0.0), builder(size))[1][-1].kl) == 0


@pytest.mark.parametrize("feed", ["tile", "split"])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("size", [1, 3])
def test_gradient_accumulation_does_not_change_the_steps(size: int, parts: int, feed: str) -> None:
    options: dict[str, Any] = {"feed": feed, "clip_norm": 0.2, "samples": 2, "beta2": 0.9}
    whole, _ = steps(IVON(**options), builder(size))
    cut, _ = steps(IVON(**options, accumulate=parts), builder(size))
    for p, q in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        close(p.detach(), q.detach(), 1e-10)
        close(whole.optimizer.sd(p), cut.optimizer.sd(q), 1e-10)


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_the_gradient_of_each_draw_is_clipped(clip_norm: float) -> None:
    moves = []
    for clipped in (None, clip_norm):
        algorithm = IVON(
            weight_decay=0.0, factor_decay=0.0, factor_rate=1.0, learning_rate=1.0, beta2=1 - 1e-15, clip_norm=clipped
        )
        # with one Hessian for all, the first step is the gradient
        before = torch.cat([p.detach().flatten() for p in builder(1)().parameters()])
        state, _ = steps(algorithm, builder(1), 1)
        moves.append(torch.cat([p.detach().flatten() for p in state.model.parameters()]) - before)
    assert moves[0].norm() > 0.1
    close(moves[1], moves[0] * min(1.0, clip_norm / float(moves[0].norm())), 1e-4)


def test_frozen_parameters_are_neither_updated_nor_drawn() -> None:
    def build() -> Model:
        model = builder()()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.endswith(("0.weight", "3.r")))
        return model

    before = {name: p.detach().clone() for name, p in build().named_parameters()}
    state, _ = steps(IVON(), build)
    same = {name for name, p in state.model.named_parameters() if torch.equal(p, before[name])}
    assert {name.removeprefix("network.network.") for name in same} == {"0.weight", "3.r"}
    for parameter in state.model.parameters():
        parameter.requires_grad_(False)
    frozen = [IVON().draw(state, sample)(batch()[0]) for sample in (0, 1)]
    assert torch.equal(*frozen)


def test_draws_have_the_posteriors_mean_and_standard_deviation() -> None:
    net = nn.Linear(3, 1, bias=False).double()
    state = IVON(weight_decay=0.5, hess_init=1.5).init(lambda: Model(net), NUM_DATA, 1)
    x = torch.eye(3, dtype=torch.float64)
    found = torch.stack([IVON().draw(state, sample)(x).flatten() for sample in range(4000)])
    sd = (NUM_DATA * 2.0) ** -0.5
    close(found.mean(0), net.weight.detach()[0], 4 * sd / 4000**0.5)
    close(found.std(0), torch.full((3,), sd, dtype=torch.float64), 4 * sd / 8000**0.5)


def test_equal_members_are_refused_unless_their_noise_makes_them_differ() -> None:
    def build(frozen: bool) -> Model:
        model = Model(ensemble(nn.Sequential(nn.Linear(6, 4)), 3, "ones").double())
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith("weight") or not frozen)
        return model

    state, _ = steps(IVON(), lambda: build(False))
    logits = state.model(batch()[0])
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    with pytest.raises(InputError, match="all members are equal"):
        IVON().init(lambda: build(True), NUM_DATA, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ess": 0.5}, "ess, .* must be from 1 to 10000 for num_data = 100, and is 0.5"),
        ({"ess": 50_000.0}, "must be from 1 to 10000 for num_data = 100, and is 50000"),
        ({"hess_init": 0.0}, "hess_init must be positive, and is 0.0"),
        ({"factor_hess_init": -1.0}, "factor_hess_init must be positive"),
        ({"clip_radius": 0.0}, "clip_radius must be positive"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1"),
        ({"beta2": 1.5}, "beta2 must be at least 0 and below 1"),
        ({"weight_decay": -1.0}, "weight_decay must not be negative"),
        ({"factor_decay": -1.0}, "factor_decay must not be negative"),
        ({"samples": 0}, "samples must be at least 1, and is 0"),
        ({"hess_approx": "gradsqr"}, "did you mean 'gradsq'"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str, unchecked: None) -> None:
    with pytest.raises(InputError, match=message):
        IVON(**options).init(builder(), NUM_DATA, 3)
