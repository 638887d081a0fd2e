"""State of a network that is neither a parameter nor a buffer: all ways to compute members use its present value."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from explicit import close
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.sharing import Ensemble, ensemble, fold

MEMBERS = 3
X = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """A layer whose outputs are multiplied by a tensor, an entry of a dict, of a list, and of an object."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.tau, self._private = torch.ones(()), torch.ones(3)
        self.options = {"scale": 1.0, "of": [torch.ones(()), 1.0]}
        self.config = SimpleNamespace(scale=1.0)
        self.act: Callable[[Tensor], Tensor] = torch.tanh

    def forward(self, x: Tensor) -> Tensor:
        tensor, number = self.options["of"]
        scale = self.tau * self._private * self.options["scale"] * tensor * number * self.config.scale
        return self.act(self.layer(x)) * scale


def another_tensor(net: Any) -> None:
    net.tau = torch.tensor(2.0)


def another_private_tensor(net: Any) -> None:
    net._private = torch.full((3,), 2.0)


def another_dict(net: Any) -> None:
    net.options = {**net.options, "scale": 2.0}


def another_object(net: Any) -> None:
    net.config = SimpleNamespace(scale=2.0)


def another_function(net: Any) -> None:
    net.act = lambda y: 2 * torch.tanh(y)


CHANGES: dict[str, Callable[[Any], object]] = {
    "another tensor": another_tensor,
    "another private tensor": another_private_tensor,
    "a tensor in place": lambda net: net.tau.fill_(2.0),
    "another dict": another_dict,
    "an entry of a dict": lambda net: net.options.update(scale=2.0),
    "a tensor in a list": lambda net: net.options["of"][0].fill_(2.0),
    "an entry of a list": lambda net: net.options["of"].__setitem__(1, 2.0),
    "another object": another_object,
    "an attribute of an object": lambda net: setattr(net.config, "scale", 2.0),
    "another function": another_function,
}


def four_ways(members: Ensemble) -> list[Tensor]:
    """Outputs of one pass with gradients, folded predictions, members in turn, and `fold`."""
    with torch.no_grad():
        folded = members(X)
    one_by_one = members.loop([X] * MEMBERS)
    return [members(X), folded, one_by_one, torch.stack([fold(members, member)(X) for member in range(MEMBERS)])]


@pytest.mark.parametrize("name", CHANGES)
def test_members_follow_a_change(name: str) -> None:
    torch.manual_seed(0)
    members = ensemble(Scaled().double(), MEMBERS, "normal", example=X[:2]).eval()
    assert members.strategy == "tile"
    before = four_ways(members)[0]
    kept, expected_of_kept = fold(members, 0), before[0]
    CHANGES[name](members.network)
    for found in four_ways(members):
        close(found, 2 * before, 1e-12)
    close(kept(X), expected_of_kept, 1e-12)
    CHANGES[name](fold(members, 0))  # a member that was folded is a network of its own
    for found in four_ways(members):
        close(found, 2 * before, 1e-12)


class RunningMean(nn.Module):
    """Subtract a running mean of the inputs, kept as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self.mean = torch.zeros(5, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x - self.mean)


@pytest.mark.parametrize(("strategy", "updates"), [("auto", 1), ("tile", 1), ("loop", MEMBERS)])
def test_a_running_mean_is_used_in_predictions(strategy: Any, updates: int) -> None:
    members = ensemble(RunningMean().double(), MEMBERS, "normal", example=X[:2], strategy=strategy).train()
    expected = torch.zeros(5, dtype=torch.float64)
    for step in range(4):
        members(X + step)
        for _ in range(updates):  # as running statistics of norms, which each member updates
            expected = 0.9 * expected + 0.1 * (X + step).mean(0)
    members.eval()
    close(members.network.mean, expected, 1e-12)
    for found in four_ways(members):
        close(found, torch.stack([fold(members, m).layer(X - expected) for m in range(MEMBERS)]), 1e-12)


@torch.no_grad()
def test_members_are_folded_again_only_after_a_change() -> None:
    members = ensemble(Scaled().double(), MEMBERS, "normal", example=X[:2]).eval()
    members(X)
    first = members._kept._members
    members(X)
    assert members._kept._members is first
    members.network.tau = torch.tensor(3.0)
    members(X)
    assert members._kept._members is not first


@pytest.mark.parametrize("has_norm", [False, True])
def test_a_trial_restores_attributes(has_norm: bool) -> None:
    class Caching(Scaled):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.BatchNorm1d(3) if has_norm else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            if not hasattr(self, "made"):
                self.made = torch.ones(3, dtype=x.dtype)
            self.cache = self.options.setdefault("cache", torch.ones(3, dtype=x.dtype))
            return super().forward(x) * self.made * self.cache

    net = Caching()
    members = ensemble(net, MEMBERS, "normal", example=X[:2].float(), own=("norms",) if has_norm else ())
    assert members.strategy == "tile"  # by a trial in float64
    later = ensemble(net, MEMBERS, "normal")
    later.settle(X[:2].float())
    for each in (net, members.network, members.plain, later.network, later.plain):
        assert vars(each).keys() == vars(Caching()).keys()
        assert "cache" not in each.options
    assert members(X.float()).dtype == torch.float32


def test_parameters_in_a_list_are_refused() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(5, 3), nn.Parameter(torch.ones(3))
            self.scales = [self.scale]

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scales[0]

    with pytest.raises(InputError, match=r"^the network itself keeps parameters in scales, a list, .*ParameterList"):
        ensemble(Listed(), MEMBERS)
