"""The IVON optimizer equals ivon-opt where that is correct, and does not have its faults."""

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import ivon
import pytest
import torch
from explicit import close
from states import through_bytes
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from bayes_share.errors import InputError
from bayes_share.inference.methods.ivon.optimizer import IVONOptimizer

OPTIONS: dict[str, Any] = {"lr": 0.2, "ess": 50.0, "hess_init": 0.75, "beta2": 0.9, "weight_decay": 0.03}
DOUBLE = torch.float64

QUIET = {"ess": 1e12, "beta2": 1 - 1e-15}
"""Options with almost no noise and a constant Hessian."""


def network(dtype: torch.dtype = DOUBLE) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).to(dtype)


def batch(dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 6, generator=generator, dtype=DOUBLE).to(dtype)
    return x, torch.randint(4, (12,), generator=generator)


def loss(net: nn.Module, rows: slice = slice(None)) -> Tensor:
    x, y = batch(next(net.parameters()).dtype)
    return nn.functional.cross_entropy(net(x[rows]), y[rows])


def take(net: nn.Module, optimizer: Any, steps: int, samples: int = 1) -> None:
    """Take steps with noise that depends only on the step number."""
    for step in range(steps):
        torch.manual_seed(step)
        for _ in range(samples):
            with optimizer.sampled_params(train=True):
                optimizer.zero_grad()
                loss(net).backward()
        optimizer.step()


def values(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def stepped(optimizer: IVONOptimizer, net: nn.Module, seed: int = 1) -> None:
    torch.manual_seed(seed)
    with optimizer.sampled_params(train=True):
        loss(net).backward()
    optimizer.step()


@pytest.mark.parametrize(
    "options",
    [{}, {"hess_approx": "gradsq"}, {"clip_radius": 0.1}, {"weight_decay": 0.0}, {"beta1": 0.0, "beta2": 0.5}],
)
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_parameters_and_hessian_equal_those_of_ivon_opt(
    options: dict[str, Any], samples: int, dtype: torch.dtype
) -> None:
    nets, options = [network(dtype), network(dtype)], {**OPTIONS, **options}
    ours, theirs = IVONOptimizer(nets[0].parameters(), **options), ivon.IVON(nets[1].parameters(), **options)
    before = values(nets[0])
    for net, optimizer in zip(nets, (ours, theirs), strict=True):
        take(net, optimizer, 60, samples)
    tolerance = 1e-12 if dtype == DOUBLE else 0 if samples == 1 else 1e-3
    assert (values(nets[0]) - before).abs().max() > 0.1
    torch.testing.assert_close(values(nets[0]), values(nets[1]), rtol=tolerance, atol=tolerance)
    hess = torch.cat([ours.state[p]["hess"].flatten() for p in nets[0].parameters()])
    torch.testing.assert_close(hess, theirs.param_groups[0]["hess"], rtol=tolerance, atol=tolerance)
    assert (hess - options["hess_init"]).abs().max() > 0.1


@pytest.mark.parametrize("cut", [1, 4])
def test_a_loaded_optimizer_continues_bit_for_bit(cut: int) -> None:
    net = network(torch.bfloat16)
    optimizer = IVONOptimizer(net.parameters(), **OPTIONS)
    take(net, optimizer, cut)
    saved = through_bytes({"net": net.state_dict(), "optimizer": optimizer.state_dict()})
    other = network(torch.bfloat16)
    resumed = IVONOptimizer(other.parameters(), **OPTIONS)
    other.load_state_dict(saved["net"])
    resumed.load_state_dict(saved["optimizer"])
    for one, again in ((net, optimizer), (other, resumed)):
        take(one, again, 5)
    assert torch.equal(values(net), values(other))
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert resumed.state[q]["step"] == cut + 5
        assert torch.equal(optimizer.state[p]["hess"], resumed.state[q]["hess"])


def test_bias_correction_continues_after_a_resume() -> None:
    sizes = []
    for forget in (False, True):
        net = network()
        optimizer = IVONOptimizer(net.parameters(), **{**OPTIONS, "ess": 1e9, "beta1": 0.99})
        take(net, optimizer, 5)
        saved = through_bytes(optimizer.state_dict())
        if forget:
            for state in saved["state"].values():
                state["step"] = 0
        optimizer.load_state_dict(saved)
        before = values(net)
        stepped(optimizer, net)
        sizes.append((values(net) - before).norm())
    assert sizes[1] > 3 * sizes[0]


@pytest.mark.parametrize("how", ["frozen", "unused"])
def test_frozen_and_unused_parameters_are_not_updated(how: str) -> None:
    net = network()
    extra = nn.Parameter(torch.ones(3, dtype=DOUBLE), requires_grad=how == "unused")
    optimizer = IVONOptimizer([extra, *net.parameters()], **{**OPTIONS, **QUIET})
    alone = network()
    reference = IVONOptimizer(alone.parameters(), **{**OPTIONS, **QUIET})
    for step in range(3):
        stepped(optimizer, net, step)
        stepped(reference, alone, step)
        assert torch.equal(extra, torch.ones_like(extra))
        assert torch.equal(optimizer.state[extra]["hess"], torch.full_like(extra, 0.75))
        assert optimizer.state[extra]["step"] == 0
    close(values(net), values(alone), 1e-4)
    with optimizer.sampled_params():
        assert torch.equal(extra, torch.ones_like(extra)) == (how == "frozen")


def test_bias_correction_starts_with_a_parameters_first_gradient() -> None:
    """Its running means are corrected for its own number of steps, not for that of the other parameters."""
    one, late = [nn.Parameter(torch.ones(2, dtype=DOUBLE)) for _ in range(2)]
    optimizer = IVONOptimizer([one, late], **{**OPTIONS, **QUIET, "weight_decay": 0.0})
    for number in range(4):
        with optimizer.sampled_params(train=True):
            (one.sum() + (late.sum() if number == 3 else 0)).backward()
        optimizer.step()
    close(1 - late.detach(), torch.full((2,), 0.2, dtype=DOUBLE), 1e-3)


def test_an_exception_in_a_draw_restores_the_means_and_drops_its_gradients() -> None:
    net, untouched = network(), network()
    optimizers = [IVONOptimizer(each.parameters(), **OPTIONS) for each in (net, untouched)]
    before = values(net)
    with suppress(RuntimeError), optimizers[0].sampled_params(train=True):
        loss(net).backward()
        assert not torch.equal(values(net), before)
        raise RuntimeError
    assert torch.equal(values(net), before)
    for each, optimizer in zip((net, untouched), optimizers, strict=True):
        stepped(optimizer, each)
    assert torch.equal(values(net), values(untouched))


def test_gradients_from_before_a_draw_are_ignored() -> None:
    net, clean = network(), network()
    optimizers = [IVONOptimizer(each.parameters(), **OPTIONS) for each in (net, clean)]
    loss(net).backward()
    for each, optimizer in zip((net, clean), optimizers, strict=True):
        stepped(optimizer, each)
        assert all(p.grad is None for p in each.parameters())
    assert torch.equal(values(net), values(clean))


def test_accumulated_parts_of_a_batch_share_one_draw() -> None:
    net, whole = network(), network()
    optimizers = [IVONOptimizer(each.parameters(), **OPTIONS) for each in (net, whole)]
    for step in range(3):
        stepped(optimizers[1], whole, step)
        torch.manual_seed(step)
        with optimizers[0].sampled_params(train=True):
            for start in (0, 4, 8):
                (loss(net, slice(start, start + 4)) / 3).backward()
        optimizers[0].step()
    close(values(net), values(whole), 1e-12)


def test_a_closure_is_called_once_per_draw() -> None:
    net, other = network(), network()
    optimizers = [IVONOptimizer(each.parameters(), **OPTIONS, mc_samples=2) for each in (net, other)]
    losses: list[Tensor] = []

    def closure() -> Tensor:
        optimizers[0].zero_grad()
        losses.append(loss(net))
        losses[-1].backward()
        return losses[-1].detach()

    torch.manual_seed(0)
    found = optimizers[0].step(closure)
    assert len(losses) == 2
    assert losses[0] != losses[1]
    close(found, (losses[0].detach() + losses[1].detach()) / 2, 1e-12)
    take(other, optimizers[1], 1, samples=2)
    close(values(net), values(other), 1e-12)


def test_a_parameter_group_can_be_added_with_its_own_options() -> None:
    net = network()
    optimizer = IVONOptimizer(net[0].parameters(), **OPTIONS)
    stepped(optimizer, net)
    optimizer.add_param_group({"params": list(net[2].parameters()), "hess_init": 3.0, "lr": 0.0})
    before = net[2].weight.detach().clone()
    assert torch.equal(optimizer.state[net[2].weight]["hess"], torch.full_like(before, 3.0))
    stepped(optimizer, net)
    assert torch.equal(net[2].weight, before)
    assert not torch.equal(optimizer.state[net[2].weight]["hess"], torch.full_like(before, 3.0))


def test_the_memory_format_is_kept_and_does_not_change_the_results() -> None:
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3).double().to(memory_format=layout)
        optimizer = IVONOptimizer(conv.parameters(), **OPTIONS)
        for step in range(3):
            torch.manual_seed(step)
            with optimizer.sampled_params(train=True):
                assert conv.weight.is_contiguous(memory_format=layout)
                conv(torch.linspace(-1, 1, 150, dtype=DOUBLE).view(2, 3, 5, 5)).square().mean().backward()
            optimizer.step()
        assert conv.weight.is_contiguous(memory_format=layout)
        found.append(values(conv))
    close(found[0], found[1], 1e-12)


def test_low_precision_parameters_have_float32_state() -> None:
    net = network(torch.bfloat16)
    optimizer = IVONOptimizer(net.parameters(), **{**OPTIONS, "beta2": 0.9999})
    stepped(optimizer, net)
    for p in net.parameters():
        assert p.dtype == torch.bfloat16
        hess = optimizer.state[p]["hess"]
        assert hess.dtype == torch.float32
        assert not torch.equal(hess, torch.full_like(hess, 0.75))  # in bfloat16 the factor 0.9999 rounds to 1
    net, plain = network(torch.float32), network(torch.float32)
    for each, is_on in ((net, True), (plain, False)):
        optimizer = IVONOptimizer(each.parameters(), **OPTIONS)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on):
            stepped(optimizer, each)
        assert all(p.dtype == optimizer.state[p]["hess"].dtype == torch.float32 for p in each.parameters())
    close(values(net), values(plain), 0.02)


def test_parameters_may_have_different_dtypes() -> None:
    single, double = [nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, DOUBLE)]
    optimizer = IVONOptimizer([single, double], **{**OPTIONS, **QUIET})
    with optimizer.sampled_params(train=True):
        (single.square().sum() + double.square().sum()).backward()
    optimizer.step()
    assert (single.dtype, double.dtype) == (torch.float32, DOUBLE)
    close(single.detach().double(), double.detach(), 1e-4)
    assert single[0] < 0.7


@pytest.mark.parametrize(("centre", "expected"), [(0.0, [0.0, 0.0]), (1.0, [1.0, 1.0]), ("sign", [1.0, -1.0])])
def test_weight_decay_pulls_towards_the_centre(centre: Any, expected: list[float]) -> None:
    p = nn.Parameter(torch.tensor([0.2, -0.5], dtype=DOUBLE))
    optimizer = IVONOptimizer([p], **{**OPTIONS, "hess_init": 1e-3, "weight_decay": 1.0}, centre=centre)
    p.data.mul_(-1)  # the centre is the initial sign, and a loaded state restores it
    resumed = IVONOptimizer([p], **{**OPTIONS, "hess_init": 1e-3, "weight_decay": 1.0}, centre=centre)
    resumed.load_state_dict(through_bytes(optimizer.state_dict()))
    for _ in range(100):
        with resumed.sampled_params(train=True):
            (0 * p).sum().backward()
        resumed.step()
    close(p.detach(), torch.tensor(expected, dtype=DOUBLE), 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize(("decay", "hess_init"), [(0.0, 1e-30), (0.0, 0.5), (0.1, 1e-30), (1e-4, 0.5)])
def test_a_vanishing_hessian_gives_finite_values(decay: float, hess_init: float, dtype: torch.dtype) -> None:
    p = nn.Parameter(torch.ones(50, dtype=dtype))
    options = {**OPTIONS, "weight_decay": decay, "hess_init": hess_init, "beta2": 0.1}
    optimizer = IVONOptimizer([p], **options, hess_approx="price")
    for _ in range(300):
        with optimizer.sampled_params(train=True):
            (-p.square()).clamp(-1, 1).sum().backward()
        optimizer.step()
        assert bool(p.isfinite().all())
        assert bool(optimizer.sd(p).isfinite().all())
        assert bool((optimizer.state[p]["hess"] + decay > 0).all())


def gaussians(sizes: list[float]) -> Iterator[tuple[Normal, Normal, IVONOptimizer]]:
    for decay in sizes:
        p = nn.Parameter(torch.linspace(-2, 2, 9, dtype=DOUBLE))
        optimizer = IVONOptimizer([p], **{**OPTIONS, "weight_decay": decay}, centre=1.0)
        optimizer.state[p]["hess"].copy_(torch.linspace(-0.9 * decay, 3, 9, dtype=DOUBLE))
        yield (
            Normal(p.detach(), optimizer.sd(p)),
            Normal(torch.ones_like(p), torch.full_like(p, 50 * decay).rsqrt()),
            optimizer,
        )


def test_the_kl_divergence_from_the_prior_equals_that_of_torch() -> None:
    for posterior, prior, optimizer in gaussians([1e-4, 0.3, 20.0]):
        close(optimizer.kl()[0], kl_divergence(posterior, prior).sum(), 1e-10)
    no_prior = IVONOptimizer([nn.Parameter(torch.ones(2))], **{**OPTIONS, "weight_decay": 0.0})
    assert no_prior.kl() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must not be negative"),
        ({"ess": 0.0}, "ess must be positive, and is 0.0"),
        ({"hess_init": 0.0}, "hess_init must be positive"),
        ({"weight_decay": math.nan}, "weight_decay must not be negative"),
        ({"clip_radius": 0.0}, "clip_radius must be positive"),
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1"),
        ({"beta2": -0.1}, "beta2 must be at least 0 and below 1"),
        ({"mc_samples": 0}, "mc_samples must be at least 1, and is 0"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IVONOptimizer(network().parameters(), **{**OPTIONS, **options})


def test_misuse_is_refused_and_leaves_the_parameters_unchanged(unchecked: None) -> None:
    net = network()
    optimizer = IVONOptimizer(net.parameters(), **OPTIONS)
    before = values(net)
    with pytest.raises(InputError, match="step requires gradients"):
        optimizer.step()
    with pytest.raises(InputError, match="no parameter has a gradient"), optimizer.sampled_params(train=True):
        pass
    with pytest.raises(InputError, match="cannot be nested"), optimizer.sampled_params(), optimizer.sampled_params():
        pass
    assert torch.equal(values(net), before)
    with pytest.raises(InputError, match="unknown estimate of the Hessian 'prise': did you mean 'price'"):
        IVONOptimizer(net.parameters(), **OPTIONS, hess_approx="prise")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="complex64"):
        IVONOptimizer([nn.Parameter(torch.ones(2, dtype=torch.complex64))], **OPTIONS)
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = IVONOptimizer(table.parameters(), **OPTIONS)
    with pytest.raises(InputError, match="sparse gradients"), optimizer.sampled_params(train=True):
        table(torch.tensor([1])).sum().backward()
