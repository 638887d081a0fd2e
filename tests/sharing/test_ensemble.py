"""What an ensemble computes: what so many plain networks compute, each with its own weights."""

from copy import deepcopy

import pytest
import torch
from explicit import close, member_weight, perturb
from nets import NETWORKS, images, network
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import FactorInit, Rank1Layer
from bayes_share.sharing import Ensemble, ensemble, members_equal

MEMBERS = 4
NORMS = ["shared", "member"]
ALL = pytest.mark.parametrize("name", NETWORKS)
BOTH = pytest.mark.parametrize("norm", NORMS)


def plain_members(net: nn.Module, members: Ensemble) -> list[nn.Module]:
    """Copies of the network that was converted, each with the weights, biases and norms of one member."""
    copies = [deepcopy(net) for _ in range(members.ensemble_size)]
    for member, copy in enumerate(copies):
        for name, module in copy.named_modules():
            converted = members.network.get_submodule(name)
            tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            for own_name, tensor in tensors:
                if own_name == "weight" and isinstance(converted, Rank1Layer):
                    r, s = converted.r[member], converted.s[member]
                    value = member_weight(converted.weight, r, s, getattr(module, "groups", 1))
                else:
                    value = getattr(converted, own_name)
                    value = value[member] if value.ndim > tensor.ndim else value
                tensor.data.copy_(value)
    return copies


@ALL
@BOTH
def test_ones_in_eval_mode_is_the_network(name: str, norm: str) -> None:
    net = network(name).eval()
    found = ensemble(net, MEMBERS, init="ones", norm=norm)(images())
    assert found.shape == (MEMBERS, 6, 5)
    close(found, net(images()).expand(MEMBERS, -1, -1))


# Without running statistics the shared ones are of all members' rows, in eval mode too: no plain network has those.
APART = [
    (name, norm) for name in NETWORKS for norm in NORMS if (name, norm) != ("batch norm without statistics", "shared")
]


@pytest.mark.parametrize(("name", "norm"), APART)
@pytest.mark.parametrize("init", ["keep", "normal", "random_sign", FactorInit("normal", sd=0.1)])
def test_every_member_is_a_plain_network(name: str, norm: str, init: str | FactorInit) -> None:
    net = network(name).eval()
    members = perturb(ensemble(net, MEMBERS, init, norm), seed=1)
    plain = plain_members(net, members)
    close(members(images()), torch.stack([copy(images()) for copy in plain]))
    parts = images(8).chunk(MEMBERS)
    expected = torch.stack([copy(part) for copy, part in zip(plain, parts, strict=True)])
    close(members(images(8), feed="split"), expected)


@pytest.mark.parametrize("feed", ["tile", "split"])
def test_every_member_is_trained_with_statistics_of_its_own(feed: str) -> None:
    net = network("batch norm 1d").train()
    members = perturb(ensemble(net, MEMBERS, norm="member"), seed=1)
    plain = plain_members(net, members)
    x = images(12)
    parts = x.chunk(MEMBERS) if feed == "split" else [x] * MEMBERS
    close(members(x, feed=feed), torch.stack([copy(part) for copy, part in zip(plain, parts, strict=True)]))
    close(members.network[2][0].running_var, torch.stack([copy[2][0].running_var for copy in plain]))
    members.eval()
    close(members(x), torch.stack([copy.eval()(x) for copy in plain]))


def test_shared_statistics_are_of_all_members_rows() -> None:
    net = network("batch norm 1d").train()
    members = ensemble(net, MEMBERS, norm="shared")
    norm = members.network[2][0]
    plain, seen = deepcopy(norm), []
    norm.register_forward_hook(lambda _norm, inputs, output: seen.extend([inputs[0], output]))
    members(images())
    rows, normalised = seen
    assert len(rows) == MEMBERS * 6
    close(normalised, plain(rows))
    close(norm.running_mean, plain.running_mean)


@ALL
@BOTH
def test_the_network_handed_in_is_left_alone(name: str, norm: str) -> None:
    net = network(name)
    net[0].eval()
    calls = []
    net.register_forward_hook(lambda *_: calls.append("original"))
    before = deepcopy(net.state_dict())
    types = [type(module) for module in net.modules()]
    modes = [module.training for module in net.modules()]
    parameters = list(net.parameters())
    members = perturb(ensemble(net, MEMBERS, norm=norm))
    members.train(not net.training)
    members(images()).sum().backward()
    assert [type(module) for module in net.modules()] == types
    assert [module.training for module in net.modules()] == modes
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))
    assert all(parameter.grad is None for parameter in parameters)
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert len(net._forward_hooks) == 1


def shares_storage(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


@ALL
@BOTH
def test_nothing_is_shared_in_memory_with_the_network_or_among_members_copies(name: str, norm: str) -> None:
    net = network(name)
    members = ensemble(net, MEMBERS, init="ones", norm=norm)
    tensors = [*members.parameters(), *members.buffers()]
    originals = [*net.parameters(), *net.buffers()]
    assert not any(shares_storage(one, other) for one in tensors for other in originals)
    assert all(tensor.is_contiguous() for tensor in tensors)


@pytest.mark.parametrize("seed", range(5))
@ALL
def test_members_are_never_the_same_with_noise_and_always_with_ones(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    net = network(name).eval()
    torch.manual_seed(seed)
    outputs = ensemble(net, MEMBERS)(images())
    assert all(not torch.equal(outputs[m], outputs[n]) for m in range(MEMBERS) for n in range(m))
    copies = ensemble(net, MEMBERS, init="ones")
    assert members_equal(copies)
    for module in copies.modules():
        if isinstance(module, Rank1Layer):
            assert torch.equal(module.expanded_weight(), module.weight.expand(MEMBERS, *module.weight.shape))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_any_number_of_members(size: int) -> None:
    net = network("batch norm 2d").eval()
    members = perturb(ensemble(net, size, norm="member"), seed=2)
    close(members(images()), torch.stack([copy(images()) for copy in plain_members(net, members)]))


@pytest.mark.parametrize("count", [1, 5, 9])
def test_a_batch_that_does_not_split_is_an_error(count: int) -> None:
    with pytest.raises(InputError, match=f"a batch of size {count} cannot be split among {MEMBERS} members"):
        ensemble(network("no norm"), MEMBERS)(images(count), feed="split")


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_feed_is_an_error() -> None:
    with pytest.raises(InputError, match="did you mean 'tile'"):
        ensemble(network("no norm"), MEMBERS)(images(8), feed="tiled")


def test_rows_cannot_be_fed_to_the_network_inside_unless_they_divide() -> None:
    with pytest.raises(InputError, match=r"6 rows do not divide among 4 members.*call the ensemble itself"):
        ensemble(network("no norm"), MEMBERS).network(images(6))


@pytest.mark.parametrize("feed", ["tile", "split"])
@BOTH
def test_channels_last_images_stay_so_from_the_first_layer_on(norm: str, feed: str) -> None:
    members = ensemble(network("batch norm 2d").eval(), MEMBERS, norm=norm)
    expected = members(images(8), feed=feed)
    seen = []
    for module in members.network[:2].modules():
        module.register_forward_hook(
            lambda _module, inputs, output: seen.extend(
                tensor.is_contiguous(memory_format=torch.channels_last) for tensor in [*inputs, output]
            )
        )
    close(members(images(8).contiguous(memory_format=torch.channels_last), feed=feed), expected)
    assert seen
    assert all(seen)
