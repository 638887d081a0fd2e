"""Re-estimated norm statistics: frozen norms keep theirs, all other kinds with running statistics get new ones."""

from typing import Any

import pytest
import torch
from explicit import close, perturb
from states import differences, through_bytes
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import SWAG, fit_tensors
from bayes_share.inference.draws.norms import reestimate_norms
from bayes_share.models.likelihoods import Gaussian
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble

BATCHES, BATCH, CHANNELS, LENGTH = 3, 4, 3, 6


class Backbone(nn.Sequential):
    """A convolution and a norm that stays in eval mode."""

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        self[1].eval()
        return self


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    x = 2 + torch.randn(BATCHES * BATCH, CHANNELS, LENGTH, generator=generator, dtype=torch.float64)
    return [(part, torch.zeros(len(part), 2)) for part in x.split(BATCH)]


def filled(norm: nn.Module) -> nn.Module:
    """Set random running statistics in place, and return the norm."""
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return norm


def network(norm: nn.Module, frozen: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    backbone = Backbone(nn.Conv1d(CHANNELS, CHANNELS, 1), frozen)
    net = nn.Sequential(backbone, nn.Tanh(), nn.Conv1d(CHANNELS, CHANNELS, 1), norm, nn.Flatten())
    net.append(nn.Linear(CHANNELS * LENGTH, 2))
    for module in (norm, frozen):
        filled(module)
    return net


def model(norm: nn.Module, frozen: nn.Module, size: int = 1, strategy: str = "tile", own: str = "shared") -> Model:
    net = network(norm, frozen)
    net = ensemble(net, size, norm=own, strategy=strategy) if size > 1 else net
    return Model(perturb(net.double()), Gaussian())


def member_convolution(of: dict[str, Tensor], at: str, x: Tensor, member: int | None) -> Tensor:
    weight, bias = of[f"{at}.weight"], of[f"{at}.bias"]
    if member is not None:
        weight = weight * torch.outer(of[f"{at}.s"][member], of[f"{at}.r"][member])[..., None]
        bias = bias[member]
    return torch.einsum("oi,bil->bol", weight[..., 0], x) + bias[:, None]


def by_hand(net: Model, member: int | None, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of the last norm's inputs, over these axes and then averaged over the others.

    Axis 0 is that of all examples, of all batches.
    """
    prefix = "network." if member is None else "network.network."
    of = {name.removeprefix(prefix): value for name, value in net.state_dict().items()}
    inputs = []
    for x, _ in batches():
        x = member_convolution(of, "0.0", x, member)
        own = {
            name: of[f"0.1.{name}"] if of[f"0.1.{name}"].ndim == 1 else of[f"0.1.{name}"][member]
            for name in ("running_mean", "running_var", "weight", "bias")
        }
        x = (x - own["running_mean"][:, None]) / (own["running_var"][:, None] + 1e-5).sqrt()
        x = (x * own["weight"][:, None] + own["bias"][:, None]).tanh()
        inputs.append(member_convolution(of, "2", x, member))
    x = torch.cat(inputs)
    return x.mean((0, 2)), x.var(over, keepdim=True).mean((0, 2))


KINDS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "batch": (lambda: nn.BatchNorm1d(CHANNELS), (0, 2)),
    "sync": (lambda: nn.SyncBatchNorm(CHANNELS), (0, 2)),
    "instance": (lambda: nn.InstanceNorm1d(CHANNELS, affine=True, track_running_stats=True), (2,)),
}


@pytest.mark.parametrize(("size", "strategy"), [(1, "tile"), (3, "tile"), (3, "loop")])
@pytest.mark.parametrize("frozen", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_all_batches_behind_norms_in_eval_mode(
    kind: str, frozen: str, size: int, strategy: str
) -> None:
    make, over = KINDS[kind]
    net = model(make(), KINDS[frozen][0](), size, strategy)
    found = reestimate_norms(net, {}, batches())
    prefix = "network.3" if size == 1 else "network.network.3"
    assert set(found) == {f"{prefix}.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    means, variances = zip(*(by_hand(net, member, over) for member in ([None] if size == 1 else range(3))), strict=True)
    close(found[f"{prefix}.running_mean"], torch.stack(means).mean(0))
    # With "tile", the variance of a shared batch norm is over the rows of all members.
    if size == 1 or over == (2,) or strategy == "loop":
        close(found[f"{prefix}.running_var"], torch.stack(variances).mean(0))


@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_norms_of_each_member_have_the_statistics_of_that_member(strategy: str) -> None:
    net = model(nn.BatchNorm1d(CHANNELS), nn.BatchNorm1d(CHANNELS), 3, strategy, "member")
    found = reestimate_norms(net, {}, batches())
    for member in range(3):
        mean, variance = by_hand(net, member, (0, 2))
        close(found["network.network.3.running_mean"][member], mean)
        close(found["network.network.3.running_var"][member], variance)
    assert not any(".0.1." in name for name in found)


class NormAndActivation(nn.BatchNorm2d):
    """A batch norm subclass with an activation, as in some libraries."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


def test_subclasses_of_batch_norm_are_reestimated() -> None:
    make = NormAndActivation

    def net() -> Model:
        torch.manual_seed(0)
        backbone = Backbone(nn.Conv2d(3, 4, 1), filled(make(4)))
        return Model(nn.Sequential(backbone, make(4), nn.Flatten(), nn.Linear(16, 2)), Gaussian()).double()

    x = torch.randn(8, 3, 2, 2, dtype=torch.float64)
    made = net()
    found = reestimate_norms(made, {}, [(x[:4], x), (x[4:], x)])
    hidden = [made.network[0].eval()(part).detach() for part in x.split(4)]
    assert set(found) == {f"network.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    close(found["network.1.running_mean"], torch.cat(hidden).mean((0, 2, 3)))
    close(found["network.1.running_var"], torch.cat(hidden).var((0, 2, 3)))


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm1d(CHANNELS, momentum=0.0),
        nn.InstanceNorm1d(CHANNELS, track_running_stats=True, momentum=0.0),
        nn.InstanceNorm1d(CHANNELS, track_running_stats=True, momentum=None),  # torch treats it as 0
        nn.InstanceNorm1d(CHANNELS),
    ],
)
def test_norms_that_never_update_their_statistics_keep_them(norm: nn.Module) -> None:
    net = Model(nn.Sequential(norm, nn.Flatten(), nn.Linear(CHANNELS * LENGTH, 2)), Gaussian()).double()
    before = through_bytes(net.state_dict())
    net.train()(batches()[0][0])
    kept = {name: value for name, value in before.items() if "running" in name}
    assert differences(kept, {name: net.state_dict()[name] for name in kept}) == []
    assert reestimate_norms(net, {}, batches()) == {}


@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_modes_momenta_and_hooks_are_restored(strategy: str) -> None:
    norm = nn.InstanceNorm1d(CHANNELS, affine=True, track_running_stats=True, momentum=0.3)
    net = model(norm, nn.BatchNorm1d(CHANNELS, momentum=None), 3, strategy).eval()
    net.network.network[1].training = True
    net.network.network[0][1].training = True  # set directly, unlike its train()
    before, modes = through_bytes(net.state_dict()), [module.training for module in net.modules()]
    reestimate_norms(net, {}, batches())
    assert differences(before, net.state_dict()) == []
    assert modes == [module.training for module in net.modules()]
    for network in (net.network.network, net.network.plain):
        assert (network[3].momentum, network[0][1].momentum) == (0.3, None)
        assert not network[3]._forward_hooks
    with pytest.raises((RuntimeError, InputError)):
        reestimate_norms(net, {}, [(torch.zeros(2, 1), torch.zeros(2))])
    assert network[3].momentum == 0.3
    assert modes == [module.training for module in net.modules()]


def test_instance_norms_accept_batches_of_one_example() -> None:
    net = model(nn.InstanceNorm1d(CHANNELS, affine=True, track_running_stats=True), nn.BatchNorm1d(CHANNELS))
    singles = [(x[i : i + 1], y[i : i + 1]) for x, y in batches() for i in range(BATCH)]
    found, together = reestimate_norms(net, {}, singles), reestimate_norms(net, {}, batches())
    close(found["network.3.running_var"], together["network.3.running_var"])


@pytest.mark.usefixtures("unchecked")
def test_swag_draws_use_the_frozen_statistics() -> None:
    """The only norm is frozen, so every draw predicts with its stored statistics."""
    net = nn.Sequential(Backbone(nn.Conv1d(CHANNELS, CHANNELS, 1), filled(nn.BatchNorm1d(CHANNELS))), nn.Flatten())
    net.append(nn.Linear(CHANNELS * LENGTH, 2))
    x = torch.cat([x for x, _ in batches()])
    algorithm = SWAG(num_snapshots=2, rank=0, scale=0.0)
    state = fit_tensors(algorithm, Model(net, Gaussian()).double(), x, torch.zeros(len(x), 2), 4, BATCH)
    assert torch.equal(state.model.network[0][1].running_mean, net[0][1].running_mean.double())
    assert state.norms == [{}]
    names = dict(state.model.named_parameters())
    expected = torch.func.functional_call(state.model.eval(), {n: state.moments.mean[n] for n in names}, (x,))
    close(algorithm.draw(state, 0)(x), expected.detach(), 1e-12)
