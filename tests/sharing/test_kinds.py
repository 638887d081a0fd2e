"""The kind of every parameter, and whether members are the same."""

import pytest
import torch
from torch import nn

from bayes_share.layers import FilterResponseNorm2d, MemberBatchNorm, Rank1Linear, ThresholdedLinearUnit
from bayes_share.sharing import ensemble, members_equal, parameter_kinds


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        FilterResponseNorm2d(4),
        ThresholdedLinearUnit(4),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


OF_NORMS = [f"network.{name}" for name, _ in net().named_parameters() if name[0] in "1234"]
BASE = ["network.0.weight", "network.6.weight"]
FACTORS = ["network.0.r", "network.0.s", "network.6.r", "network.6.s"]


@pytest.mark.parametrize("norm", ["shared", "member"])
def test_the_kind_of_every_parameter(norm: str) -> None:
    members = ensemble(net(), norm=norm)
    kinds = parameter_kinds(members)
    expected = dict.fromkeys(BASE, "base") | dict.fromkeys(FACTORS, "factor") | {"network.6.bias": "member"}
    assert len(OF_NORMS) == 7
    assert kinds == expected | dict.fromkeys(OF_NORMS, "member" if norm == "member" else "base")
    assert list(kinds) == [name for name, _ in members.named_parameters()]


def test_a_plain_network_is_all_base() -> None:
    plain = net()
    assert set(parameter_kinds(plain).values()) == {"base"}
    assert parameter_kinds(plain).keys() == dict(plain.named_parameters()).keys()
    assert members_equal(plain)


def test_a_layer_alone_has_names_without_a_prefix() -> None:
    expected = {"weight": "base", "bias": "member", "r": "factor", "s": "factor"}
    assert parameter_kinds(Rank1Linear(2, 2)) == expected
    assert parameter_kinds(MemberBatchNorm(2, 3)) == {"weight": "member", "bias": "member"}


def test_tied_parameters_are_named_once() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight, tied[1].bias = tied[0].weight, tied[0].bias
    tied[2] = tied[1]
    kinds = parameter_kinds(ensemble(tied).network)
    assert kinds == {
        "0.weight": "base",
        "0.bias": "member",
        "0.r": "factor",
        "0.s": "factor",
        "1.r": "factor",
        "1.s": "factor",
    }


@pytest.mark.parametrize("norm", ["shared", "member"])
def test_members_differ_as_soon_as_one_number_of_their_own_does(norm: str) -> None:
    members = ensemble(net(), init="ones", norm=norm)
    for name, parameter in members.named_parameters():
        own = parameter_kinds(members)[name] != "base"
        assert members_equal(members)
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        assert members_equal(members) is not own
        parameter.data.copy_(before)


@pytest.mark.parametrize(
    ("init", "equal"),
    [("keep", False), ("normal", False), ("random_sign", False), ("ones", True)],
    ids=lambda value: str(value),
)
def test_members_equal_after_each_init(init: str, equal: bool) -> None:
    torch.manual_seed(0)
    assert members_equal(ensemble(net(), 4, init)) is equal


def test_one_member_is_equal_to_itself() -> None:
    assert members_equal(ensemble(net(), 1))


def test_a_tied_bias_that_differs_is_seen() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].bias = tied[0].bias
    members = ensemble(tied, init="ones")
    assert members_equal(members)
    with torch.no_grad():
        members.network[1].bias[2] += 1
    assert not members_equal(members)
