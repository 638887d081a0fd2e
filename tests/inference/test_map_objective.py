"""MAP follows the gradient of the objective in docs/architecture.md, computed here member by member."""

from collections.abc import Callable

import pytest
import torch
from explicit import close, member_weight, perturb
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.inference import MAP, Build
from bayes_share.inference.methods.map import MAPState
from bayes_share.inference.step.drivers import step
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

RATE, DECAY, FACTOR_RATE, FACTOR_DECAY = 0.05, 0.3, 0.25, 0.7
PENALISED = {"weight_decay": DECAY, "factor_decay": FACTOR_DECAY}


def builder(size: int, norm: str) -> Build:
    def build() -> Model:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.Tanh(), nn.Linear(8, 4, bias=False))
        model = Model(ensemble(net, size, "normal", norm) if size > 1 else net)
        return perturb(model.double())  # type: ignore[return-value]

    return build


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (12,), generator=generator)


def member(values: dict[str, Tensor], name: str, m: int) -> Tensor:
    """Return a parameter of member m: its own row, or the shared value."""
    value = values[name]
    return value[m] if is_own(name, value) else value


def is_own(name: str, value: Tensor) -> bool:
    return name.endswith((".r", ".s")) or (value.ndim == 2 and (name.endswith("bias") or name == "1.weight"))


def member_logits(values: dict[str, Tensor], x: Tensor, m: int) -> Tensor:
    def linear(x: Tensor, at: str) -> Tensor:
        weight = values[f"{at}.weight"]
        if f"{at}.r" in values:
            weight = member_weight(weight, member(values, f"{at}.r", m), member(values, f"{at}.s", m))
        return x @ weight.T

    hidden = linear(x, "0") + member(values, "0.bias", m)
    hidden = F.group_norm(hidden, 2, member(values, "1.weight", m), member(values, "1.bias", m))
    return linear(hidden.tanh(), "3")


def objective(values: dict[str, Tensor], size: int, feed: str, weight_decay: float, factor_decay: float) -> Tensor:
    x, y = batch()
    total = torch.zeros((), dtype=torch.float64)
    for m in range(size):
        rows = slice(None) if feed == "tile" else slice(m * 12 // size, (m + 1) * 12 // size)
        log_probs = member_logits(values, x[rows], m).log_softmax(-1)
        total = total - log_probs[torch.arange(len(log_probs)), y[rows]].mean() / size
    for name, value in values.items():
        if name.endswith((".r", ".s")):
            penalty = factor_decay / 2 * (value - value.detach().sign()).square().sum() / size
        else:
            penalty = weight_decay / 2 * value.square().sum() / (size if is_own(name, value) else 1)
        total = total + penalty
    return total


def values_of(state: MAPState) -> dict[str, Tensor]:
    return {
        name.removeprefix("network.").removeprefix("network."): value.detach().clone().requires_grad_()
        for name, value in state.model.named_parameters()
    }


@pytest.mark.parametrize("feed", ["tile", "split"])
@pytest.mark.parametrize(("size", "norm"), [(1, "shared"), (3, "shared"), (3, "member")])
@pytest.mark.parametrize("penalties", [{"weight_decay": 0.0}, PENALISED], ids=["plain", "penalised"])
def test_a_step_follows_the_gradient_of_the_explicit_objective(
    size: int, norm: str, feed: str, penalties: dict[str, float]
) -> None:
    algorithm = MAP(
        learning_rate=RATE, momentum=0.0, factor_rate=FACTOR_RATE, schedule="constant", feed=feed, **penalties
    )
    state = algorithm.init(builder(size, norm), num_data=100, num_steps=10)
    before = values_of(state)
    loss = objective(before, size, feed, **{"factor_decay": 0.0, **penalties})
    gradients = dict(zip(before, torch.autograd.grad(loss, list(before.values())), strict=True))
    info = step(algorithm, state, batch())
    after = values_of(state)
    assert len(after) == (5 if size == 1 else 9)
    for name, value in before.items():
        rate = RATE * (FACTOR_RATE if name.endswith((".r", ".s")) else 1)
        assert gradients[name].abs().max() > 1e-6
        close(after[name], value - rate * gradients[name], 1e-12)
    close(info.loss, objective(before, size, feed, 0.0, 0.0).detach(), 1e-12)
    close(info.log_lik, -info.loss, 0)


def steps(algorithm: MAP, build: Build, count: int = 3) -> tuple[dict[str, Tensor], Tensor]:
    state = algorithm.init(build, 100, count)
    infos = [step(algorithm, state, batch()) for _ in range(count)]
    return values_of(state), torch.stack([torch.stack([info.loss, info.accuracy.double()]) for info in infos])


@pytest.mark.parametrize("feed", ["tile", "split"])
@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("size", [1, 3])
def test_gradient_accumulation_does_not_change_the_steps(size: int, parts: int, feed: str) -> None:
    whole = MAP(feed=feed, factor_decay=0.1, clip_norm=0.5)
    cut = MAP(feed=feed, factor_decay=0.1, clip_norm=0.5, accumulate=parts)
    expected, expected_infos = steps(whole, builder(size, "shared"))
    found, infos = steps(cut, builder(size, "shared"))
    for name, value in expected.items():
        close(found[name], value, 1e-12)
    close(infos, expected_infos, 1e-7)  # the accuracy is float32


@pytest.mark.parametrize("clip_norm", [0.01, 0.1, 1e6])
def test_a_gradient_longer_than_clip_norm_is_scaled_down_to_it(clip_norm: float) -> None:
    options = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.0, "factor_rate": 1.0, "schedule": "constant"}
    moves = []
    for clipped in (None, clip_norm):
        algorithm = MAP(**options, clip_norm=clipped)
        state = algorithm.init(builder(3, "shared"), 100, 1)
        before = values_of(state)
        step(algorithm, state, batch())
        moves.append(torch.cat([(value - before[name]).detach().flatten() for name, value in values_of(state).items()]))
    length = moves[0].norm()
    assert length > 0.1
    close(moves[1], moves[0] * min(1.0, clip_norm / float(length)), 1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_frozen_parameters_are_not_updated(optimizer: str) -> None:
    def build() -> Model:
        model = builder(3, "shared")()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.endswith(("0.weight", "3.r")))
        return model

    algorithm = MAP(optimizer=optimizer, learning_rate=0.01, factor_decay=0.5)
    state = algorithm.init(build, 100, 5)
    before = values_of(state)
    for _ in range(5):
        step(algorithm, state, batch())
    same = {name for name, value in values_of(state).items() if torch.equal(value, before[name])}
    assert same == {"0.weight", "3.r"}


def adamw(p: Tensor, gradient: Callable[[Tensor], Tensor], rate: float, decay: float, decoupled: bool) -> Tensor:
    """Take three steps of Adam with the default constants, and decoupled decay or decay in the gradient."""
    m, v = torch.zeros_like(p), torch.zeros_like(p)
    for t in (1, 2, 3):
        g = gradient(p) + (0 if decoupled else decay) * p
        p = p * (1 - rate * decay) if decoupled else p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return p


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_weight_decay_is_decoupled_in_adamw_but_not_in_adam(optimizer: str) -> None:
    algorithm = MAP(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5, schedule="constant")
    x, y = batch()

    def build() -> Model:
        return perturb(Model(nn.Linear(6, 4, bias=False)).double())  # type: ignore[return-value]

    state = algorithm.init(build, 100, 3)
    start = state.model.network.weight.detach().clone()
    for _ in range(3):
        step(algorithm, state, (x, y))

    def gradient(p: Tensor) -> Tensor:
        p = p.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(x @ p.T, y), p)[0]

    expected = adamw(start, gradient, 0.1, 0.5, decoupled=optimizer == "adamw")
    close(state.model.network.weight.detach(), expected, 1e-12)
    other = adamw(start, gradient, 0.1, 0.5, decoupled=optimizer != "adamw")
    assert (other - expected).abs().max() > 1e-3


def test_momentum_is_nesterov() -> None:
    algorithm = MAP(learning_rate=0.1, weight_decay=0.0, momentum=0.9, schedule="constant")
    x, y = batch()
    state = algorithm.init(lambda: perturb(Model(nn.Linear(6, 4, bias=False)).double()), 100, 3)  # type: ignore
    p = state.model.network.weight.detach().clone()
    velocity = torch.zeros_like(p)
    for _ in range(3):
        step(algorithm, state, (x, y))
        leaf = p.clone().requires_grad_()
        g = torch.autograd.grad(F.cross_entropy(x @ leaf.T, y), leaf)[0]
        velocity = 0.9 * velocity + g
        p = p - 0.1 * (g + 0.9 * velocity)
    close(state.model.network.weight.detach(), p, 1e-12)


def test_decoupled_decay_of_member_parameters_is_that_of_a_single_network() -> None:
    """AdamW shrinks a parameter without a gradient by lr * decay per step, whatever the number of members."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).double()
    torch.nn.init.ones_(net[1].bias)
    sizes = []
    for model in (Model(net), Model(ensemble(net, 4, init="normal"))):
        algorithm = MAP(optimizer="adamw", learning_rate=0.1, weight_decay=0.5, schedule="constant")
        state = algorithm.init(lambda model=model: model, num_data=8, num_steps=1)
        state.stepper.optimizer.zero_grad()
        for parameter in state.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for group in state.stepper.optimizer.param_groups:
            group["lr"] = group["base_rate"]
        state.stepper.optimizer.step()
        bias = next(value for name, value in state.model.named_parameters() if name.endswith("bias"))
        sizes.append(bias.detach().unique())
    torch.testing.assert_close(sizes[0], torch.tensor([1 - 0.1 * 0.5], dtype=torch.float64))
    assert torch.equal(*sizes)


def test_decoupled_decay_pulls_factors_to_their_signs_and_further_terms_to_0() -> None:
    """By learning rate * decay of the distance, whatever the number of members. The first step of AdamW adds to it."""
    found = []
    for decay in (0.0, FACTOR_DECAY):
        algorithm = MAP(
            optimizer="adamw",
            learning_rate=RATE,
            factor_rate=FACTOR_RATE,
            weight_decay=0.0,
            factor_decay=decay,
            schedule="constant",
        )
        torch.manual_seed(0)
        net = ensemble(nn.Linear(6, 4), 3, "random_sign", factor_rank=2)
        state = algorithm.init(lambda net=net: perturb(Model(net).double()), 100, 10)  # type: ignore[arg-type, return-value]
        before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
        step(algorithm, state, batch())
        found.append({name: value.detach() for name, value in state.model.named_parameters()})
    for name, start in before.items():
        pull = torch.zeros_like(start)
        if name.rpartition(".")[2] in ("r", "s", "more_r", "more_s"):
            pull = (start - (0 if "more" in name else start.sign())) * RATE * FACTOR_RATE * FACTOR_DECAY
            assert pull.abs().max() > 1e-4
        close(found[1][name], found[0][name] - pull, 1e-12)
