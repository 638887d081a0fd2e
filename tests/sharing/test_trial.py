"""The trial that settles how an ensemble computes: it leaves no trace, and tells what went wrong in one line."""

from typing import Any

import pytest
import torch
from explicit import perturb
from nets import NETWORKS, images
from odd_nets import SIZE, Counts, vectors
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.sharing import ensemble

MEMBERS = 3


def state(net: nn.Module) -> dict[str, Any]:
    tensors = {name: tensor.clone() for name, tensor in net.state_dict(keep_vars=True).items()}
    objects = {name: id(tensor) for name, tensor in [*net.named_parameters(), *net.named_buffers()]}
    return {"tensors": tensors, "objects": objects, "modes": [module.training for module in net.modules()]}


def same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["objects"] == other["objects"]
    assert one["modes"] == other["modes"]
    assert one["tensors"].keys() == other["tensors"].keys()
    assert all(torch.equal(tensor, other["tensors"][name]) for name, tensor in one["tensors"].items())


TRIED = {"counts": (Counts, vectors()), "batch norm": (NETWORKS["batch norm 2d"], images())}


@pytest.mark.parametrize(("make", "x"), TRIED.values(), ids=TRIED)
def test_a_trial_leaves_no_trace(make: Any, x: Tensor) -> None:
    net = perturb(make().double()).train()
    next(net.children()).eval()
    calls = []
    for module in net.modules():
        module.register_forward_hook(lambda *_: calls.append("after"))
        module.register_forward_pre_hook(lambda *_: calls.append("before"))
    before, hooks = state(net), [len(module._forward_hooks) for module in net.modules()]
    torch.manual_seed(0)
    ensemble(net, MEMBERS, "ones")
    random = torch.get_rng_state()
    torch.manual_seed(0)
    members = ensemble(net, MEMBERS, "ones", example=x)
    assert torch.equal(torch.get_rng_state(), random)
    same_state(state(net), before)
    inside = state(members)
    members.choose_strategy(x)
    same_state(state(members), inside)
    same_state(state(net), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert not calls
    for one in (net, members.network, members.plain):
        assert [len(module._forward_hooks) for module in one.modules()] == hooks
        assert [len(module._forward_pre_hooks) for module in one.modules()] == hooks
    assert members.strategy == "tile"
    assert all(parameter.grad is None for parameter in members.parameters())


def test_a_trial_that_fails_leaves_no_trace() -> None:
    net = nn.Sequential(Counts(), nn.BatchNorm1d(3), nn.Linear(3, 3)).double().train()
    net[1].eval()
    before = state(net)
    with pytest.raises(InputError, match=r"the network fails on the example of shape \[6, 5\]:") as caught:
        ensemble(net, MEMBERS, example=vectors(6, 5))
    assert "\n" not in str(caught.value)
    same_state(state(net), before)
    members = ensemble(net, MEMBERS)
    inside = state(members)
    with pytest.raises(InputError, match=r"\[6, 5\]"):
        members(vectors(6, 5))
    same_state(state(members), inside)
    assert members.strategy == "auto"


class Raises(nn.Module):
    def __init__(self, message: str) -> None:
        super().__init__()
        self.layer, self.message = nn.Linear(SIZE, SIZE), message

    def forward(self, x: Any) -> Tensor:
        raise AssertionError(self.message)


@pytest.mark.parametrize(("message", "end"), [("", "AssertionError"), ("\nfirst\nsecond", "first")])
def test_an_error_of_the_network_is_told_in_one_line(message: str, end: str) -> None:
    with pytest.raises(InputError) as caught:
        ensemble(Raises(message), example={"a": torch.zeros(2, 3), "b": torch.zeros(2)})
    assert str(caught.value) == f"the network fails on the example of shape [[2, 3], [2]]: {end}"
