"""What converting a network keeps: ties, hooks, modes, types and places; and what it refuses."""

import pickle
import re
from copy import deepcopy

import pytest
import torch
from explicit import close, perturb
from nets import NETWORKS, images, network
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import FilterResponseNorm2d, MemberBatchNorm, Rank1Conv2d, Rank1Linear
from bayes_share.sharing import ensemble

MEMBERS = 3


def linears(count: int, size: int = 4) -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(size, size) for _ in range(count)]).double()


def vectors(count: int = 5) -> Tensor:
    return torch.randn(count, 4, dtype=torch.float64)


@pytest.mark.parametrize("norm", ["shared", "member"])
def test_a_module_used_twice_stays_one_module(norm: str) -> None:
    layer, batch_norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    net = nn.Sequential(layer, batch_norm, nn.ModuleDict({"again": layer})["again"], batch_norm).double().eval()
    perturb(net)
    members = ensemble(net, MEMBERS, norm=norm)
    assert members.network[0] is members.network[2]
    assert members.network[1] is members.network[3]
    assert members.network[0].r.shape == (MEMBERS, 4)
    assert len(list(members.parameters())) == 6  # weight, bias, r and s, and the norm's weight and bias
    close(ensemble(net, MEMBERS, "ones", norm)(vectors_once := vectors()), net(vectors_once).expand(MEMBERS, -1, -1))


def test_parameters_that_two_modules_share_stay_shared() -> None:
    net = linears(3)
    net[2].weight, net[2].bias = net[0].weight, net[0].bias
    net[1].bias = net[0].bias
    members = ensemble(net, MEMBERS).network
    assert members[2].weight is members[0].weight
    assert members[2].bias is members[0].bias is members[1].bias
    assert members[0].bias.shape == (MEMBERS, 4)
    assert members[1].weight is not members[0].weight
    factors = [factor for layer in members for factor in (layer.r, layer.s)]
    assert len({id(factor) for factor in factors}) == 6
    assert net[2].weight is net[0].weight


def test_tied_norms_stay_tied() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    net[3].weight, net[3].running_mean = net[1].weight, net[1].running_mean
    members = ensemble(net, MEMBERS, norm="member").network
    assert members[3].weight is members[1].weight
    assert members[3].running_mean is members[1].running_mean
    assert members[3].bias is not members[1].bias
    assert members[3].running_var is not members[1].running_var


def test_hooks_fire_on_the_copy() -> None:
    net = linears(2)
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append("after"))
    net[1].register_forward_pre_hook(lambda *_: calls.append("before"))
    net[1].register_full_backward_hook(lambda *_: calls.append("backward"))
    ensemble(net, MEMBERS)(vectors()).sum().backward()
    assert calls == ["after", "before", "backward"]


def test_what_is_frozen_stays_frozen() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    net[0].weight.requires_grad_(False)
    net[1].bias.requires_grad_(False)
    net[2].bias.requires_grad_(False)
    members = ensemble(net, MEMBERS, norm="member")
    frozen = {name for name, parameter in members.network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"0.weight", "0.r", "0.s", "1.bias", "2.bias"}


@pytest.mark.parametrize("name", ["batch norm 1d", "batch norm 2d", "group norm", "filter response norm"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("norm", ["shared", "member"])
def test_dtype_and_device_are_kept(name: str, dtype: torch.dtype, norm: str) -> None:
    members = ensemble(NETWORKS[name]().to("meta", dtype), MEMBERS, norm=norm)
    assert {parameter.dtype for parameter in members.parameters()} == {dtype}
    assert {tensor.device.type for tensor in [*members.parameters(), *members.buffers()]} == {"meta"}


@pytest.mark.parametrize("training", [True, False])
def test_training_modes_are_kept(training: bool) -> None:
    net = network("batch norm 2d").train(training)
    net[1].train(not training)
    members = ensemble(net, MEMBERS, norm="member")
    assert [module.training for module in members.network.modules()] == [module.training for module in net.modules()]
    assert members.training is training


def test_memory_format_of_weights_is_kept() -> None:
    net = network("batch norm 2d").to(memory_format=torch.channels_last)
    weight = ensemble(net, MEMBERS).network[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_what_has_no_bias_gets_none() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, affine=False), nn.Linear(4, 4, bias=False))
    members = ensemble(net, MEMBERS, norm="member").network
    assert members[0].bias is members[2].bias is None
    assert members[1].weight is members[1].bias is None
    assert "0.bias" not in members.state_dict()


def test_types_after_conversion() -> None:
    assert type(ensemble(nn.Linear(4, 4)).network) is Rank1Linear
    assert type(ensemble(nn.Conv2d(4, 4, 1)).network) is Rank1Conv2d
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4, elementwise_affine=False), nn.ReLU())
    assert [type(module) for module in ensemble(net).network] == [Rank1Linear, nn.BatchNorm1d, nn.LayerNorm, nn.ReLU]
    assert type(ensemble(net, norm="member").network[1]) is MemberBatchNorm
    unshared = nn.Sequential(nn.Linear(4, 4), FilterResponseNorm2d(4))
    assert ensemble(unshared).network[1].ensemble_size is None
    assert ensemble(unshared, norm="member").network[1].ensemble_size == 4


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["shared", "member"])
def test_an_ensemble_can_be_copied_saved_and_pickled(name: str, norm: str) -> None:
    net = network(name)
    members = perturb(ensemble(net, MEMBERS, norm=norm), seed=3).eval()
    expected = members(images())
    other = ensemble(net, MEMBERS, "random_sign", norm).eval()
    assert not torch.equal(other(images()), expected)
    other.load_state_dict(members.state_dict())
    for copy in (deepcopy(members), pickle.loads(pickle.dumps(members)), other):
        assert torch.equal(copy(images()), expected)
        assert repr(copy) == repr(members)
        assert all(one is not other for one, other in zip(copy.parameters(), members.parameters(), strict=True))


def test_ties_survive_a_copy_and_a_pickle() -> None:
    net = linears(2)
    net[1].bias = net[0].bias
    members = ensemble(net, MEMBERS)
    for copy in (deepcopy(members), pickle.loads(pickle.dumps(members))):
        assert copy.network[0].bias is copy.network[1].bias


REFUSED = {
    "nothing to share": (lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm1d(4)), "it has parameters in BatchNorm1d"),
    "no parameters": (lambda: nn.ReLU(), "it has parameters in no layer"),
    "an ensemble": (lambda: ensemble(linears(1)), "this network is already an ensemble"),
    "an ensemble inside": (lambda: nn.Sequential(ensemble(linears(1))), "this network is already an ensemble"),
    "the network of an ensemble": (lambda: ensemble(linears(1)).network, "this network is already an ensemble"),
    "the network itself": (lambda: nn.PReLU(), "no layer of this PReLU can be shared: it has parameters in"),
    "a subclass": (lambda: nn.Sequential(type("Other", (nn.Linear,), {})(4, 4)), "it has parameters in Other"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4)), "0, a LazyLinear, is not initialised"),
    "reparametrised": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
        "it has parameters in ParametrizationList",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_converted_is_named(make: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        ensemble(make())
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ensemble_size": 0}, "ensemble_size must be an integer of at least 1, and is 0"),
        ({"ensemble_size": 2.5}, "an integer of at least 1, and is 2.5"),
        ({"ensemble_size": -2}, "ensemble_size must be an integer of at least 1, and is -2"),
        ({"init": "one"}, "unknown factor init 'one': did you mean 'ones'"),
        ({"init": "randomsign"}, "did you mean 'random_sign'"),
        ({"norm": "members"}, "unknown norm sharing 'members': did you mean 'member'"),
        ({"norm": "xyz"}, "choose from member, shared"),
    ],
)
def test_options_that_cannot_be_used_are_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ensemble(linears(1), **options)
