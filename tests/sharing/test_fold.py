"""A folded member: the plain network that the member is, of the classes that there were, and independent."""

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from explicit import close, member_weight, perturb
from nets import NETWORKS, images, network
from odd_nets import SIZE, Positions, vectors
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import FilterResponseNorm2d, ThresholdedLinearUnit, set_way
from bayes_share.sharing import Ensemble, ensemble, fold, share_layers

MEMBERS = 3


class Tied(nn.Module):
    """A module used twice, weights and biases of two layers that are one, and a norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(SIZE, SIZE) for _ in range(3))
        self.again = self.first
        self.third.weight, self.third.bias = self.second.weight, self.second.bias
        self.norm, self.other_norm = nn.LayerNorm(SIZE), nn.LayerNorm(SIZE)
        self.other_norm.weight = self.norm.weight
        self.scale = self.same_scale = nn.Parameter(torch.ones(SIZE))
        self.prelu, self.other_prelu = nn.PReLU(), nn.PReLU()
        self.other_prelu.weight = self.prelu.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.again(self.norm(self.first(x))) * self.same_scale)
        return self.other_prelu(self.other_norm(self.third(torch.tanh(self.second(x)))) * self.scale)


class Tokens(nn.Module):
    """An embedding that is the head's weight too, attention, and layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(x)))


def convolutions(*norms: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1),
        *norms,
        nn.Conv2d(4, 8, 3, groups=2, padding=1, padding_mode="circular"),
        nn.ConvTranspose2d(8, 6, 2, groups=2, dilation=2, bias=False),
        nn.Conv2d(6, 6, 3, groups=6, stride=2),
        nn.Flatten(2),
        nn.Conv1d(6, 4, 3, padding="same"),
        nn.ConvTranspose1d(4, 4, 2, groups=4),
        nn.Unflatten(2, (-1, 1, 1)),
        nn.Conv3d(4, 2, 1),
        nn.ConvTranspose3d(2, 2, (2, 1, 1)),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def initialised(net: nn.Module) -> nn.Module:
    net(images(2).float())
    return net


TOKENS = torch.arange(20).view(4, 5) % 7
MORE: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "convolutions": (lambda: initialised(convolutions()), images()),
    "group norm, no dropout": (lambda: initialised(convolutions(nn.GroupNorm(2, 4), nn.ReLU())), images()),
    "frn and tlu": (
        lambda: initialised(convolutions(FilterResponseNorm2d(4), ThresholdedLinearUnit(4))),
        images(),
    ),
    "ties": (Tied, vectors()),
    "tokens": (Tokens, TOKENS),
    "a constant": (Positions, vectors(5, 6, SIZE)),
}


def more(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, x = MORE[name]
    return perturb(make().double()).train(), x


def same_form(plain: nn.Module, net: nn.Module) -> None:
    """The modules, parameters and buffers of a network are those of another, but for their numbers."""
    modules, others = (list(one.named_modules(remove_duplicate=False)) for one in (plain, net))
    assert [(name, type(module)) for name, module in modules] == [(name, type(module)) for name, module in others]
    assert [module.training for _, module in modules] == [module.training for _, module in others]
    found, expected = (one.state_dict(keep_vars=True) for one in (plain, net))
    assert list(found) == list(expected)
    for name, tensor in found.items():
        other = expected[name]
        assert (type(tensor), tensor.shape, tensor.dtype) == (type(other), other.shape, other.dtype), name
        assert (tensor.requires_grad, tensor.stride()) == (other.requires_grad, other.stride()), name


def outputs(members: Ensemble, x: Tensor) -> Tensor:
    set_way(members, "activations")  # where a folded member plays no part
    return members(x)


@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_member_is_that_member(name: str, norm: Any) -> None:
    net = network(name).eval()
    members = perturb(ensemble(net, MEMBERS, norm=norm), seed=1)
    expected = outputs(members, images())
    for member in range(MEMBERS):
        plain = fold(members, member)
        close(plain(images()), expected[member])
        same_form(plain, net)
        deepcopy(net).load_state_dict(plain.state_dict(), strict=True)


@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MORE)
def test_a_folded_member_is_that_member_in_either_mode(name: str, training: bool, norm: Any) -> None:
    net, x = more(name)
    members = perturb(ensemble(net.train(training), MEMBERS, norm=norm, example=x), seed=1)
    assert members.strategy == "tile"
    expected = outputs(members, x)
    differ = [not torch.equal(expected[0], expected[member]) for member in range(1, MEMBERS)]
    assert all(differ)
    fresh = MORE[name][0]().double().train(training)
    for member in range(MEMBERS):
        with warnings.catch_warnings(record=True, action="always") as said:
            plain = fold(members, member)
        close(plain(x), expected[member])
        same_form(plain, net)
        fresh.load_state_dict(plain.state_dict(), strict=True)
        if name not in ("ties", "tokens"):
            close(fresh(x), expected[member])
            assert not said
        else:  # where what was one parameter is now two
            assert not torch.allclose(fresh(x), expected[member])
            assert "are the same weight in the original network, but differ here because of their" in str(
                said[0].message
            )


def test_tied_layers_that_are_still_equal_go_without_a_warning() -> None:
    net, x = more("ties")
    fold(ensemble(net, MEMBERS, init="ones", example=x), 1)
    shared = share_layers(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]), init="random_sign")
    assert "shares_across" not in vars(fold(shared)[0])
    with pytest.warns(UserWarning, match=r"^second\.weight and third\.weight are the same weight") as said:
        fold(ensemble(net, MEMBERS, example=x), 1)
    assert len(said) == 1


@pytest.mark.filterwarnings("ignore:.* are the same weight in the original network, but differ")
@pytest.mark.parametrize("norm", ["shared", "member"])
def test_what_was_tied_stays_so_where_it_is_still_the_same(norm: Any) -> None:
    net, x = more("ties")
    plain = fold(ensemble(net, MEMBERS, norm=norm, example=x), 1)
    assert plain.first is plain.again
    assert plain.second.bias is plain.third.bias
    assert plain.second.weight is not plain.third.weight
    assert not torch.equal(plain.second.weight, plain.third.weight)
    assert plain.norm.weight is plain.other_norm.weight
    assert plain.norm.bias is not plain.other_norm.bias
    assert plain.scale is plain.same_scale
    assert plain.prelu.weight is plain.other_prelu.weight
    copies = fold(ensemble(net, MEMBERS, "ones", norm=norm, example=x), 1)
    close(copies.second.weight, copies.third.weight)
    close(copies(x), net(x))


def test_what_a_folded_member_keeps() -> None:
    net = network("batch norm 2d").float().to(memory_format=torch.channels_last).train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[1][0][0].first[0].bias.requires_grad_(False)
    calls = []
    net[3].register_forward_hook(lambda *_: calls.append("hook"))
    members = ensemble(net, MEMBERS)
    plain = fold(members, 2)
    same_form(plain, net)
    assert plain[0].weight.is_contiguous(memory_format=torch.channels_last)
    plain.eval()(images().float())
    assert calls == ["hook"]
    same_form(fold(ensemble(net.to(torch.bfloat16), MEMBERS), 0), net)


def test_a_folded_member_is_independent() -> None:
    members = ensemble(network("batch norm 2d").train(), MEMBERS, norm="member")
    plain = fold(members, 0)
    before = {name: tensor.clone() for name, tensor in members.state_dict().items()}
    storages = {tensor.untyped_storage().data_ptr() for tensor in members.state_dict().values()}
    assert storages.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in plain.state_dict().values())
    assert all(parameter.is_leaf for parameter in plain.parameters())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    plain(images()).square().sum().backward()
    optimizer.step()
    assert all(parameter.grad is None for parameter in members.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in members.state_dict().items())


@pytest.mark.filterwarnings("ignore:.* are the same weight in the original network, but differ")
def test_a_draw_takes_the_place_of_parameters() -> None:
    net, x = more("ties")
    members = ensemble(net.eval(), MEMBERS, example=x, norm="member")
    generator = torch.Generator().manual_seed(5)
    draw = {
        name: 1 + torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        for name, parameter in members.named_parameters()
    }
    before = {name: tensor.clone() for name, tensor in members.state_dict().items()}
    plain = fold(members, 1, draw)
    assert all(torch.equal(tensor, before[name]) for name, tensor in members.state_dict().items())
    third = member_weight(draw["network.second.weight"], draw["network.third.r"][1], draw["network.third.s"][1])
    close(plain.third.weight, third)
    drawn = deepcopy(members)
    with torch.no_grad():
        for name, parameter in drawn.named_parameters():
            parameter.copy_(draw[name])
    close(plain(x), outputs(drawn, x)[1])
    some = fold(members, 1, {"network.norm.weight": draw["network.norm.weight"]})
    close(some.norm.weight, draw["network.norm.weight"][1])
    assert some.other_norm.weight is some.norm.weight
    close(some.second.weight, fold(members, 1).second.weight)


@pytest.mark.parametrize("member", [None, -1, 3, 7])
def test_a_member_that_is_not_there_is_an_error(member: int | None) -> None:
    with pytest.raises(InputError, match=f"member must be from 0 to 2, and is {member}"):
        fold(ensemble(nn.Linear(4, 4), MEMBERS), member)


def test_unknown_parameters_are_named() -> None:
    members = ensemble(nn.Linear(4, 4), MEMBERS)
    draw = {"network.weight": torch.zeros(4, 4), "weight": torch.zeros(4, 4), "network.q": torch.zeros(4)}
    with pytest.raises(InputError, match=r"the ensemble has no parameter weight, network.q"):
        fold(members, 0, draw)


def test_a_network_that_is_no_ensemble_folds_to_a_copy() -> None:
    net = network("no norm")
    plain = fold(net)
    same_form(plain, net)
    assert torch.equal(plain(images()), net(images()))
    assert all(one is not other for one, other in zip(plain.parameters(), net.parameters(), strict=True))
    with pytest.raises(InputError, match="this Sequential has no members: use member=None"):
        fold(net, 0)


def test_an_ensemble_of_one_folds_to_what_it_is() -> None:
    net, x = more("convolutions")
    members = perturb(ensemble(net, 1))
    close(fold(members, 0)(x), outputs(members, x)[0])
