"""Networks with weights that are computed for each call: converted, folded and trained, with those layers shared."""

from collections.abc import Callable

import pytest
import torch
from explicit import close
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from bayes_share import MAP, Model, fit_tensors, predict
from bayes_share.errors import InputError
from bayes_share.sharing import ensemble, fold, ledger, share_groups, share_layers, take_member

MEMBERS = 3

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def perceptron() -> nn.Module:
    layers = [part for _ in range(3) for part in (nn.Linear(6, 6), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


class Attends(nn.Module):
    """An attention and two layers of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.one, self.other, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.unflatten(1, (1, 6)).expand(-1, 2, -1)
        return self.last(self.other(self.one(self.attention(tokens, tokens, tokens)[0].mean(1))))


def changed(net: nn.Module, change: Callable[[nn.Module], object]) -> nn.Module:
    change(net)
    return net


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "weight norm, by a hook": lambda: changed(perceptron(), lambda n: nn.utils.weight_norm(n[0])),
    "spectral norm, by a hook": lambda: changed(perceptron(), lambda n: nn.utils.spectral_norm(n[0])),
    "pruned": lambda: changed(perceptron(), lambda n: prune.l1_unstructured(n[0], "weight", 0.5)),
    "pruned bias": lambda: changed(perceptron(), lambda n: prune.l1_unstructured(n[0], "bias", 0.5)),
    "weight norm": lambda: changed(perceptron(), lambda n: parametrizations.weight_norm(n[0])),
    "spectral norm": lambda: changed(perceptron(), lambda n: parametrizations.spectral_norm(n[0])),
    "pruned attention": lambda: changed(Attends(), lambda n: prune.l1_unstructured(n.attention, "in_proj_weight", 0.5)),
    "pruned output of attention": lambda: changed(
        Attends(), lambda n: prune.l1_unstructured(n.attention.out_proj, "weight", 0.5)
    ),
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def called(name: str) -> tuple[nn.Module, Tensor]:
    """A network that was called with gradients, so that its computed weights have a graph."""
    torch.manual_seed(0)
    net, x = NETWORKS[name](), torch.randn(12, 6).double()
    net(x).sum().backward()
    net.eval()
    net(x)
    return net, x


@EVERY
@pytest.mark.parametrize("strategy", ["tile", "loop"])
def test_members_that_start_as_copies_compute_what_the_network_does(name: str, strategy: str) -> None:
    net, x = called(name)
    copies = ensemble(net, MEMBERS, init="ones", strategy=strategy)
    close(copies(x), net(x).expand(MEMBERS, -1, -1), 1e-12)
    with torch.no_grad():
        close(copies(x), net(x).expand(MEMBERS, -1, -1), 1e-12)


@EVERY
def test_a_member_is_folded_and_taken_out(name: str) -> None:
    net, x = called(name)
    members = ensemble(net, MEMBERS, init="normal", example=x)
    expected = members(x)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    plain = fold(members, 1)
    close(plain(x), expected[1], 1e-12)
    close(take_member(members, 1)(x)[0], expected[1], 1e-12)
    assert plain.state_dict().keys() == net.state_dict().keys()


@EVERY
def test_layers_and_blocks_share_around_it(name: str) -> None:
    net, x = called(name)
    for shared in (share_layers(net), share_groups(net, 3)):
        close(fold(shared)(x), shared(x), 1e-12)
    assert ledger(net).members == 1


@EVERY
def test_a_training_ends_in_predictions(name: str) -> None:
    net, x = called(name)
    model = Model(ensemble(net, MEMBERS, init="normal", example=x))
    y = torch.arange(12) % 3
    state = fit_tensors(MAP(learning_rate=0.1), model, x, y, num_steps=3)
    first = predict(MAP(), state, x)
    assert first.shape == (1, MEMBERS, 12, 3)
    assert first.isfinite().all()
    fold(state.model.network, 1)


LAZY: dict[str, Callable[[], nn.Module]] = {
    "1, a LazyLinear,": lambda: nn.Sequential(nn.Linear(6, 6), nn.LazyLinear(6), nn.Linear(6, 3)),
    "1, a LazyBatchNorm1d,": lambda: nn.Sequential(nn.Linear(6, 6), nn.LazyBatchNorm1d(), nn.Linear(6, 6)),
}


@pytest.mark.parametrize("make", [ensemble, share_layers, share_groups, fold, Model, ledger], ids=lambda f: f.__name__)
@pytest.mark.parametrize("named", LAZY)
def test_lazy_modules_are_refused_in_a_line(named: str, make: Callable[[nn.Module], object]) -> None:
    with pytest.raises(InputError, match=rf"^{named} is not initialised: call the network once on a batch$"):
        make(LAZY[named]())


@pytest.mark.parametrize("named", LAZY)
def test_lazy_modules_that_were_called_are_as_others(named: str) -> None:
    net, x = LAZY[named](), torch.randn(5, 6)
    net(x)
    net.eval()
    torch.testing.assert_close(ensemble(net, MEMBERS, init="ones")(x), net(x).expand(MEMBERS, -1, -1))
