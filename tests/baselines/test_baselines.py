"""Packed ensembles, Masksembles and MIMO against explicit computations with torch's operations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v2, resnet18

from bayes_share import ensemble, fold, ledger, share_groups
from bayes_share.baselines import masked, mimo, packed
from bayes_share.baselines.boundary_layers import ends_of
from bayes_share.errors import InputError
from bayes_share.models.networks import build_network

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
EXAMPLE = X[:2]


def conv_net(norm: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


class Branches(nn.Module):
    """A network with two first layers, a shortcut, and two last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.inner, self.after = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(16, 8, 1)
        self.head, self.other = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        h = torch.cat([h + self.inner(h.relu()), self.side(x)], 1)
        pooled = self.after(h.relu()).mean((2, 3))
        return self.head(pooled) + 0.5 * self.other(pooled)


def test_ends_of_finds_all_first_and_last_layers_of_a_branching_network() -> None:
    ends = ends_of(Branches(), EXAMPLE)
    assert ends.first == {"stem", "side"}
    assert ends.last == {"head", "other"}
    single = ends_of(nn.Linear(3, 2), torch.zeros(2, 3))
    assert single.first == single.last == {""}


@pytest.mark.parametrize("gamma", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_a_packed_ensemble_equals_a_wide_network_of_grouped_convolutions(gamma: int, training: bool) -> None:
    members = packed(conv_net(), ensemble_size=4, alpha=2.0, gamma=gamma, example=EXAMPLE).double().train(training)
    first, norm, _, second, *_, last = members.network  # type: ignore[misc]
    assert first.weight.shape == (4, 8, 3, 3, 3)
    assert second.weight.shape == (4, 12, 8 // gamma, 3, 3)
    x = X.double()
    h = F.conv2d(x, first.weight.flatten(0, 1), first.bias.flatten(), padding=1)  # [batch, member * channel, ...]
    h = F.batch_norm(
        h,
        norm.running_mean.flatten().clone(),
        norm.running_var.flatten().clone(),
        norm.weight.flatten(),
        norm.bias.flatten(),
        training,
    )
    h = F.conv2d(h.relu(), second.weight.flatten(0, 1), None, stride=2, padding=1, groups=4 * gamma)
    h = h.relu().mean((2, 3)).unflatten(1, (4, -1))
    expected = torch.einsum("bmi,moi->mbo", h, last.weight) + last.bias[:, None]
    torch.testing.assert_close(members(x), expected)


def test_packed_members_are_narrow_networks_with_different_initial_values() -> None:
    members = packed(conv_net(), ensemble_size=4, alpha=2.0, example=EXAMPLE).eval()
    outputs = members(X).detach()
    for member in range(4):
        narrow = fold(members, member)
        assert [type(module) for module in narrow] == [type(module) for module in conv_net()]  # type: ignore[attr-defined]
        torch.testing.assert_close(narrow(X).detach(), outputs[member])
    assert float((outputs[0] - outputs[1]).abs().max()) > 1e-2


def test_packed_widths_match_the_paper() -> None:
    """Each of four members of half the width has a quarter of the weights, except in the first and last layers."""
    net = build_network("resnet20", num_classes=10, in_channels=3, image_size=(8, 8))
    plain, four = ledger(net), ledger(packed(net, 4, 2.0, example=EXAMPLE))
    assert abs(four.stored / plain.stored - 1) < 0.03
    assert four.base == four.factor == 0
    assert four.member == four.stored
    wide = packed(net, 4, 4.0, example=EXAMPLE)
    for member in range(2):
        shapes = [tuple(tensor.shape) for tensor in fold(wide, member).parameters()]
        assert shapes == [tuple(tensor.shape) for tensor in net.parameters()]


def test_masked_members_multiply_inputs_by_their_masks() -> None:
    members = masked(conv_net(norm=False), ensemble_size=3, scale=1.5, example=EXAMPLE).double()
    first, _, _, second, *_, last = members.network  # type: ignore[misc]
    assert type(first) is nn.Conv2d  # the image itself is not masked
    masks = (second.factor("r"), last.factor("r"))
    assert all(set(mask.unique().tolist()) == {0.0, 1.0} for mask in masks)
    x = X.double()
    for member, outputs in enumerate(members(x)):
        h = F.conv2d(x, first.weight, first.bias, padding=1).relu()
        h = F.conv2d(h * masks[0][member][:, None, None], second.weight, None, stride=2, padding=1).relu().mean((2, 3))
        expected = F.linear(h * masks[1][member], last.weight, last.bias[0])
        torch.testing.assert_close(outputs, expected)


def test_masks_are_buffers_in_the_state_dict() -> None:
    net = conv_net()
    members = masked(net, ensemble_size=4, example=EXAMPLE)
    assert sum(p.numel() for p in members.parameters()) == sum(p.numel() for p in net.parameters())
    counts = ledger(members)
    assert counts.member == counts.factor == 0
    other = masked(net, ensemble_size=4, example=EXAMPLE)
    assert not torch.equal(other.network[3].factor("r"), members.network[3].factor("r"))  # type: ignore[index]
    other.load_state_dict(members.state_dict())
    torch.testing.assert_close(other.eval()(X), members.eval()(X), rtol=0, atol=0)
    empty = masked(net, ensemble_size=4, example=EXAMPLE).eval().to("meta")
    empty.load_state_dict(members.double().state_dict(), assign=True)
    torch.testing.assert_close(empty(X.double()), members(X.double()))
    members.float()
    torch.testing.assert_close(members.keep([2, 0])(X), members(X)[[2, 0]])
    torch.testing.assert_close(fold(members, 3)(X), members(X)[3])


@pytest.mark.parametrize("net", [conv_net, Branches])
def test_mimo_concatenates_inputs_along_channels_and_divides_its_outputs(net: Callable[[], nn.Module]) -> None:
    members = mimo(net(), ensemble_size=3, example=EXAMPLE).eval()
    with torch.no_grad():
        rows = members.network(X[:2].repeat(1, 3, 1, 1))
        assert rows.shape == (2, 15)
        torch.testing.assert_close(members(X[:2]), rows.reshape(2, 3, 5).transpose(0, 1))
        # Member m has images 2m and 2m + 1.
        mixed = members.network(torch.cat([X[0:2], X[2:4], X[4:6]], 1))
        torch.testing.assert_close(members(X, feed="split"), mixed.reshape(2, 3, 5).transpose(0, 1))


def test_mimo_keeps_the_layers_between_first_and_last() -> None:
    net = conv_net()
    inside = mimo(net, ensemble_size=2, example=EXAMPLE).network
    assert torch.equal(inside[3].weight, net[3].weight)  # type: ignore[index]
    assert inside[0].weight.shape == (16, 6, 3, 3)
    assert inside[7].weight.shape == (10, 24)


@pytest.mark.parametrize("make", [packed, masked, mimo])
@pytest.mark.parametrize("network", [resnet18, mobilenet_v2])
def test_torchvision_networks_are_converted(make: Callable[..., Any], network: Callable[..., nn.Module]) -> None:
    """These networks have shortcuts, bottlenecks and depthwise convolutions."""
    net = network(num_classes=7)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    members = make(net, 4, example=x).eval()
    assert members(x).shape == (4, 2, 7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())  # left alone


def with_last(*last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4), *last)


WIDE = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_norms_without_parameters_are_resized() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8, affine=False),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        nn.GroupNorm(4, 8, affine=False),
        nn.Flatten(),
        nn.LayerNorm(32, elementwise_affine=False),
        nn.Linear(32, 3),
    )
    x = torch.randn(5, 1, 6, 6)
    members = packed(net, 4, example=x)
    assert members.train()(x).shape == (4, 5, 3)
    network = members.network
    assert (network[1].num_features, network[4].num_channels, network[6].normalized_shape) == (4, 4, (16,))


@pytest.mark.parametrize("make", [packed, mimo])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, nn.Identity])
def test_norms_before_the_first_and_after_the_last_layer_are_not_ends(make: Any, norm: Any) -> None:
    net = nn.Sequential(nn.BatchNorm1d(6), *with_last(norm(4)))  # type: ignore[call-overload]
    if make is mimo and norm is nn.LayerNorm:
        with pytest.raises(InputError, match="would mix the members"):
            make(net, 4, example=WIDE)
        return
    assert make(net, 4, example=WIDE).eval()(WIDE).shape == (4, 5, 4)


def test_mimo_divides_the_output_axis() -> None:
    words = torch.randn(2, 8, 6)
    with pytest.raises(
        InputError, match=r"concatenates images along the channel axis, \[batch, channel, \.\.\.\], and"
    ):
        mimo(with_last(), 2, example=words)
    net = nn.Sequential(nn.Conv1d(8, 5, 3, padding=1), nn.Conv1d(5, 3, 1))  # outputs of each position
    members = mimo(net, 2, example=words)
    torch.testing.assert_close(
        members(words), members.network(words.repeat(1, 2, 1)).unflatten(1, (2, 3)).movedim(1, 0)
    )


def test_packed_keeps_the_initialisation_of_the_network() -> None:
    """He initialisation has the scale of the same network built with the smaller width, and zeros stay zeros."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_classes": 10, "in_channels": 3, "image_size": (8, 8)}
    net, narrow = (build_network(name, **options) for name in ("resnet20", "resnet20_8"))
    members = packed(net, 4, 2.0, example=EXAMPLE).requires_grad_(False)
    narrow.requires_grad_(False)
    for (name, expected), rows in zip(narrow.named_parameters(), members.network.parameters(), strict=True):
        if expected.ndim > 1:
            error = float(expected.std()) / expected.numel() ** 0.5
            assert abs(float(rows.std() / expected.std()) - 1) < 5 * error / float(expected.std()) + 0.02, name
        elif bool((expected == expected[0]).all()):  # the head's bias is random
            torch.testing.assert_close(rows, expected.expand_as(rows))
    stem = mimo(net, 3, example=EXAMPLE).network
    first, before = next(stem.parameters()).detach(), next(net.parameters()).detach()
    assert float(first.std() / before.std()) == pytest.approx(3**-0.5, rel=0.1)


def test_masks_of_a_weight_with_blocks_are_equal_for_all_output_blocks() -> None:
    torch.manual_seed(0)
    net = share_groups(nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)), 2)
    r = masked(net, 4, example=WIDE).network[2].factor("r")  # type: ignore[index]
    assert r.shape == (4, 2, 2, 6)
    assert torch.equal(r[:, 0] != 0, r[:, 1] != 0)  # for both halves of the outputs


class Embedded(nn.Module):
    """A container with its own parameter, which is applied to the input first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inside, self.head = nn.Parameter(torch.ones(6)), nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inside(x * self.scale).relu())


def test_only_first_layers_get_no_masks_not_the_containers_around_them() -> None:
    members = masked(Embedded(), 3, example=WIDE)
    assert type(members.network.inside) is nn.Linear
    assert members.network.head.has_fixed_factors  # type: ignore[union-attr]


class Patches(nn.Module):
    """A network with a parameter that does not belong to a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.zeros(4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.token)


class Fixed(nn.Module):
    """A network whose forward pass depends on fixed widths."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).reshape(-1, 8))


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    net[1].weight = net[0].weight
    return net


def grouped() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 24, 1, groups=4), nn.Flatten(), nn.Linear(24 * 64, 2))


ROWS = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: packed(Patches(), example=ROWS), r"cannot resize the network itself \(Patches\)"),
        (lambda: mimo(Patches(), example=ROWS), r"cannot resize the network itself \(Patches\)"),
        (lambda: packed(Fixed(), 2, 1.0, example=ROWS), "would change the shape of the outputs of this Fixed"),
        (lambda: packed(tied(), example=ROWS), "replaces layers, and cannot handle the tied parameters"),
        (lambda: packed(conv_net(), alpha=0.0, example=EXAMPLE), "must be positive"),
        (
            lambda: packed(conv_net(), gamma=0, example=EXAMPLE),
            "gamma, the groups of a member's convolutions, must be an integer of at least 1",
        ),
        (
            lambda: packed(grouped(), gamma=3, example=EXAMPLE),
            "which do not divide into 12 groups",
        ),
        (lambda: packed(ensemble(conv_net(), 2), example=EXAMPLE), "this network is already an ensemble"),
        (lambda: ensemble(mimo(conv_net(), example=EXAMPLE), 2), "this network is already an ensemble"),
        (lambda: packed(mimo(conv_net(), example=EXAMPLE), example=EXAMPLE), "this network is already an ensemble"),
        (lambda: mimo(with_last(nn.LogSoftmax(1)), 2, example=WIDE), "would mix the members"),
        (lambda: mimo(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)), example=X), "one output"),
        (lambda: masked(conv_net(), scale=0.5, example=EXAMPLE), "scale of masks"),
        (lambda: mimo(conv_net(), example=torch.zeros(4)), r"one input tensor \[batch, channel"),
        (
            lambda: mimo(conv_net(), example=EXAMPLE)(X[:4], feed="split"),
            "a batch of size 4 cannot be split among 3 members",
        ),
        (
            lambda: mimo(conv_net(), example=EXAMPLE)({"x": X}),
            "requires one tensor",
        ),
        (lambda: fold(mimo(conv_net(), example=EXAMPLE), 1), "are computed by one network"),
    ],
)
def test_unsupported_networks_and_options_raise_a_one_line_message(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
