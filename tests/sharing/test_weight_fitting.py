"""The fit to weights tries several starts: its error is never above that of the first one, and often below."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from bayes_share.sharing import fold, share_groups, share_layers, weight_fitting


def linears(count: int = 4) -> nn.Module:
    return nn.Sequential(*[nn.Linear(8, 8) for _ in range(count)]).double()


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module], int]] = {
    "linear layers": (linears, lambda net: share_layers(net, fit_to_weights=True), 1),
    "convolutions": (
        lambda: nn.Sequential(*[nn.Conv2d(4, 4, 3) for _ in range(4)]).double(),
        lambda net: share_layers(net, fit_to_weights=True),
        1,
    ),
    "one number each": (linears, lambda net: share_layers(net, factors="scalar", fit_to_weights=True), 1),
    "blocks": (
        lambda: nn.Sequential(nn.Linear(16, 16)).double(),
        lambda net: share_groups(net, 4, fit_to_weights=True),
        1,
    ),
    "templates": (lambda: linears(5), lambda net: share_layers(net, templates=2, fit_to_weights=True), 2),
}


def error(net: nn.Module, shared: nn.Module) -> float:
    """The squared error of all weights over their square, from the definition."""
    found, wanted = fold(shared).state_dict(), net.state_dict()
    names = [name for name in wanted if name.endswith("weight")]
    wrong = sum(float((found[name] - wanted[name]).square().sum()) for name in names)
    return wrong / sum(float(wanted[name].square().sum()) for name in names)


def errors(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """With the first starts alone, and with all."""
    make, share, first = CASES[name]
    torch.manual_seed(seed)
    net = make()
    now = error(net, share(net))
    starts = weight_fitting._starts
    with monkeypatch.context() as patch:
        patch.setattr(weight_fitting, "_starts", lambda *given: list(starts(*given))[:first])
        return error(net, share(net)), now


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CASES)
def test_the_error_is_never_above_that_of_the_first_start(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, now = errors(name, seed, monkeypatch)
    assert now <= first * (1 + 1e-9)


@pytest.mark.parametrize(("name", "seed"), [("linear layers", 0), ("blocks", 2)])
def test_the_first_start_alone_ends_too_high(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    first, now = errors(name, seed, monkeypatch)
    assert now < 0.95 * first


def test_a_first_layer_that_is_unlike_the_others_does_not_mislead(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first share one base exactly; it is small, and its best share of the base is known to cost little."""
    torch.manual_seed(0)
    base = torch.randn(8, 8, dtype=torch.float64)
    net = linears(4)
    with torch.no_grad():
        net[0].weight.copy_(1e-3 * torch.randn(8, 8))
        for layer in list(net)[1:]:
            layer.weight.copy_(base * torch.randn(8, 1) * torch.randn(1, 8))
    small = float(net[0].weight.detach().square().sum())
    all_of_it = sum(float(layer.weight.detach().square().sum()) for layer in net)
    # With the exact base and a factor of 0 for the first layer nothing but that layer is lost.
    assert error(net, share_layers(net, fit_to_weights=True)) <= small / all_of_it * (1 + 1e-6)


def test_the_same_weights_have_the_same_fit() -> None:
    torch.manual_seed(0)
    net = linears()
    one, other = (share_layers(net, fit_to_weights=True).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
