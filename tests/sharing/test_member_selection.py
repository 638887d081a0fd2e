"""A member taken out as an ensemble of one: its outputs, its kinds of parameters, and nothing of the others."""

from typing import Any

import pytest
import torch
from explicit import close, perturb
from nets import NETWORKS, images, network
from torch import nn

from bayes_share.errors import InputError
from bayes_share.sharing import Ensemble, ensemble, fold, parameter_kinds, take_member
from bayes_share.sharing.ledger import ledger


@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_what_the_member_does(name: str, norm: Any) -> None:
    members = perturb(ensemble(network(name).eval(), 3, norm=norm), seed=1)
    expected = members(images())
    for member in range(3):
        taken = take_member(members, member)
        assert isinstance(taken, Ensemble)
        close(taken(images()), expected[member : member + 1])
        plain, folded = fold(taken, 0), fold(members, member)
        assert all(torch.equal(tensor, folded.state_dict()[key]) for key, tensor in plain.state_dict().items())


@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("name", NETWORKS)
def test_those_that_are_kept_compute_what_they_did_among_all(name: str, norm: Any) -> None:
    members = perturb(ensemble(network(name).eval(), 5, norm=norm), seed=1)
    expected = members(images())
    kept = members.keep([4, 0, 2])
    close(kept(images()), expected[[4, 0, 2]])
    with torch.no_grad():  # folded
        close(kept(images()), expected[[4, 0, 2]])
    assert kept.ensemble_size == 3
    assert kept.summary().startswith("3 members")
    assert parameter_kinds(kept) == parameter_kinds(members)
    assert ledger(kept).members == 3
    assert all(
        torch.equal(tensor, fold(members, 2).state_dict()[key]) for key, tensor in fold(kept, 2).state_dict().items()
    )
    one = members.keep([1]).state_dict()
    assert all(torch.equal(tensor, one[key]) for key, tensor in take_member(members, 1).state_dict().items())
    mine, theirs = ({tensor.data_ptr() for tensor in net.state_dict().values()} for net in (kept, members))
    assert mine.isdisjoint(theirs)
    assert members(images()).shape[0] == 5


@pytest.mark.parametrize("members", [[], [0, 0], [3], [-1], [True]])
def test_members_that_cannot_be_kept_are_an_error(members: Any) -> None:
    with pytest.raises(InputError, match="member"):
        ensemble(nn.Linear(4, 4), 3).keep(members)


@pytest.mark.parametrize("norm", ["shared", "member"])
def test_it_trains_as_the_member_does(norm: Any) -> None:
    members = perturb(ensemble(network("group norm").train(), 3, norm=norm, strategy="tile"), seed=1)
    members.network[1][0][0].rest[1][1].p = 0.0
    taken = take_member(members, 2)
    assert taken.training
    members(images())[2].square().sum().backward()
    taken(images()).square().sum().backward()
    whole = dict(members.named_parameters())
    kinds = parameter_kinds(members)
    assert parameter_kinds(taken) == kinds
    for name, parameter in taken.named_parameters():
        gradient = whole[name].grad
        assert gradient is not None
        assert parameter.grad is not None
        close(parameter.grad, gradient if kinds[name] == "base" else gradient[2:3])


def test_it_is_a_copy_and_keeps_what_was_tied_or_frozen() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.LayerNorm(4))
    net[1].bias = net[0].bias
    net[3].weight = net[2].weight
    net[0].weight.requires_grad_(False)
    members = ensemble(net, 3, norm="member")
    taken = take_member(members, 1)
    network = taken.network
    assert network[0].bias is network[1].bias
    assert network[2].weight is network[3].weight
    assert not network[0].weight.requires_grad
    assert not network[0].r.requires_grad
    assert network[1].r.requires_grad
    mine, theirs = ({tensor.data_ptr() for tensor in one.state_dict().values()} for one in (taken, members))
    assert mine.isdisjoint(theirs)
    assert members.ensemble_size == 3
    assert members(torch.ones(2, 4)).shape == (3, 2, 4)


@pytest.mark.parametrize("member", [-1, 3])
def test_a_member_that_is_not_there_is_an_error(member: int) -> None:
    with pytest.raises(InputError, match=f"members must be from 0 to 2, and one is {member}"):
        take_member(ensemble(nn.Linear(4, 4), 3), member)
