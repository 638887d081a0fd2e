"""Layers of one shape with one base weight: what is shared, how it starts, what fits, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close, perturb
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import FactorInit, Rank1Conv2d, Rank1Linear
from bayes_share.models.networks import build_network
from bayes_share.sharing import describe_sharing, ensemble, fold, ledger, share_groups, share_layers, sharing_error


def perceptron(width: int = 8, depth: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.BatchNorm1d(width), nn.Tanh())]
    return perturb(nn.Sequential(nn.Linear(5, width), *hidden, nn.Linear(width, 3)).double()).eval()  # type: ignore[return-value]


def encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True)
    return perturb(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).double()).eval()


def torchvision_resnet18() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    return models.resnet18(num_classes=5).double().eval()


def small(name: str) -> Callable[[], nn.Module]:
    return lambda: build_network(name, num_classes=10, in_channels=3, image_size=(16, 16)).double().eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (4, 5)),
    "resnet20": (small("resnet20"), (2, 3, 16, 16)),
    "vgg11": (small("vgg11"), (2, 3, 16, 16)),
    "encoder": (encoder, (2, 4, 8)),
    "torchvision": (torchvision_resnet18, (2, 3, 32, 32)),
}
WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "rank-1": lambda net: share_layers(net, init="normal"),
    "scalar": lambda net: share_layers(net, factors="scalar", init="normal"),
    "tied": lambda net: share_layers(net, factors="none"),
    "one norm": lambda net: share_layers(net, norm="shared", init="normal"),
    "groups": lambda net: share_groups(net, 2, indivisible="skip"),
    "layers and groups": lambda net: share_groups(share_layers(net), 2, indivisible="skip"),
    "groups and layers": lambda net: share_layers(share_groups(net, 2, indivisible="skip"), norm="shared"),
}


def inputs(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("unchecked")
def test_a_network_that_shares_folds_into_the_plain_one(name: str, way: str) -> None:
    make, shape = NETWORKS[name]
    net, x = make(), inputs(shape)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    shared = WAYS[way](net)
    assert type(shared) is type(net)
    assert sum(p.numel() for p in shared.parameters()) < sum(p.numel() for p in net.parameters())
    plain = fold(shared)
    close(plain(x), shared(x), 1e-12)
    assert [type(module) for module in plain.modules()] == [type(module) for module in net.modules()]
    names = [key for key, _ in net.named_parameters()]
    assert [key for key, _ in plain.named_parameters()] == names  # none is tied
    fresh = make()
    fresh.load_state_dict(plain.state_dict(), strict=True)
    close(fresh(x), shared(x), 1e-12)
    assert ledger(shared).used == ledger(net).stored
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_the_first_layer_begins_as_it_was_and_the_others_as_the_first() -> None:
    net = perceptron()
    shared = share_layers(net)
    plain = fold(shared)
    for number in (1, 4, 7, 10):
        assert shared[number].weight is shared[1].weight
        close(plain[number].weight, net[1].weight)
        close(plain[number].bias, net[number].bias)
    assert type(shared[0]) is type(shared[13]) is nn.Linear
    assert list(dict(shared.named_parameters())) == [
        name
        for name in dict(perceptron_of_rank1(net).named_parameters())
        if not name.endswith(("4.weight", "7.weight", "10.weight"))
    ]


def perceptron_of_rank1(net: nn.Sequential) -> nn.Sequential:
    return ensemble(net, 1, include=["1", "4", "7", "10"]).network  # type: ignore[return-value]


def test_numbers_that_are_stored() -> None:
    plain, weight = ledger(perceptron()), 64
    assert ledger(share_layers(perceptron())).stored == plain.stored - 3 * weight + 4 * 16
    assert ledger(share_layers(perceptron(), factors="scalar")).stored == plain.stored - 3 * weight + 4
    assert ledger(share_layers(perceptron(), factors="none")).stored == plain.stored - 3 * weight
    assert ledger(share_layers(perceptron(), factors="none", templates=2)).stored == plain.stored - 2 * weight + 4 * 2
    assert ledger(share_layers(perceptron(), norm="shared")).stored == plain.stored - 3 * (weight + 16) + 4 * 16
    found = ledger(share_layers(perceptron()))
    assert (found.weights, found.uses, found.per_use, found.not_shared) == (1, 4, 16.0, ())


def test_early_and_deep_are_halves() -> None:
    early, deep = share_layers(perceptron(), "early"), share_layers(perceptron(), "deep")
    kinds = lambda net: [type(net[number]).__name__ for number in (1, 4, 7, 10)]  # noqa: E731
    assert kinds(early) == ["Rank1Linear", "Rank1Linear", "Linear", "Linear"]
    assert kinds(deep) == ["Linear", "Linear", "Rank1Linear", "Rank1Linear"]
    both = share_layers(early, "deep")
    assert both[1].weight is both[4].weight
    assert both[7].weight is both[10].weight
    assert both[1].weight is not both[7].weight


def test_a_layer_in_the_middle_is_early_and_deep() -> None:
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    early, deep = share_layers(net, "early"), share_layers(net, "deep")
    assert early[0].weight is early[1].weight is not early[2].weight
    assert deep[0].weight is not deep[1].weight
    assert deep[1].weight is deep[2].weight


def test_sets_of_patterns_share_within_themselves_and_a_predicate_chooses() -> None:
    sets = share_layers(perceptron(), [["1", "7"], ["4", "10"]])
    assert sets[1].weight is sets[7].weight is not sets[4].weight
    assert sets[4].weight is sets[10].weight
    odd = share_layers(perceptron(), lambda name, layer: isinstance(layer, nn.Linear) and name in ("4", "10"))
    assert odd[4].weight is odd[10].weight
    assert type(odd[1]) is nn.Linear


def test_a_shared_norm_is_one_norm_and_an_own_one_is_not() -> None:
    own, one = share_layers(perceptron()), share_layers(perceptron(), norm="shared")
    assert own[2] is not own[5]
    assert one[2] is one[5] is one[8] is one[11]
    x = inputs((6, 5))
    plain = fold(one)
    assert plain[2] is not plain[5]
    assert plain[2].weight is not plain[5].weight
    assert plain[2].running_mean.data_ptr() != plain[5].running_mean.data_ptr()
    close(plain(x), one(x), 1e-12)


def test_a_frozen_norm_is_not_one_with_a_trained_one() -> None:
    net = perceptron()
    net[2].requires_grad_(False)
    one = share_layers(net, norm="shared")
    assert one[2] is not one[5]
    assert one[5] is one[8] is one[11]
    assert [one[number].weight.requires_grad for number in (2, 5)] == [False, True]


def test_norms_in_a_row_are_those_of_the_layers_before_in_order() -> None:
    net = share_layers(encoder(), norm="shared")
    first, last = net.layers[0], net.layers[2]
    assert first.norm1 is last.norm1
    assert first.norm2 is last.norm2
    assert first.norm1 is not first.norm2


def test_templates_begin_as_the_first_layers_and_are_learned() -> None:
    net = perceptron()
    soft = share_layers(net, templates=2)
    plain = fold(soft)
    close(plain[1].weight, net[1].weight)
    close(plain[4].weight, net[4].weight)
    close(plain[7].weight, net[1].weight)
    soft(inputs((4, 5))).square().sum().backward()
    for number in (1, 4, 7, 10):
        assert soft[number].weight.shape == (2, 8, 8)
        assert bool((soft[number].mix.grad != 0).all())


def test_one_template_mixes_nothing() -> None:
    assert share_layers(perceptron(), templates=1)[1].mix is None


@pytest.mark.parametrize("factors", ["rank1", "scalar"])
@pytest.mark.parametrize("name", ["perceptron", "resnet20", "encoder"])
@pytest.mark.usefixtures("unchecked")
def test_weights_that_are_shared_exactly_are_found(name: str, factors: Any) -> None:
    make, shape = NETWORKS[name]

    def is_no_attention(name: str, layer: nn.Module) -> bool:
        return not isinstance(layer, nn.MultiheadAttention)

    net = fold(share_layers(make(), is_no_attention, factors=factors, init="normal"))
    found = share_layers(net, factors=factors, fit_to_weights=True)
    assert max(sharing_error(found, net).values()) < 1e-6
    close(found(inputs(shape)), net(inputs(shape)), 1e-5)


@pytest.mark.parametrize("factors", ["rank1", "scalar", "none"])
@pytest.mark.parametrize("templates", [1, 2])
def test_a_fit_is_no_worse_than_what_it_starts_from_and_finer_ones_are_better(factors: Any, templates: int) -> None:
    net = perceptron()
    fitted = sharing_error(share_layers(net, factors=factors, templates=templates, fit_to_weights=True), net)
    start = sharing_error(share_layers(net, factors=factors, templates=templates), net)
    square = lambda errors: sum(error**2 for error in errors.values())  # noqa: E731
    assert square(fitted) < square(start)
    if factors == "none" and templates == 1:
        mean = torch.stack([net[number].weight for number in (1, 4, 7, 10)]).mean(0)
        close(fold(share_layers(net, factors="none", fit_to_weights=True))[7].weight, mean)


@pytest.mark.parametrize("templates", [1, 2])
def test_no_step_along_the_gradient_betters_a_fit(templates: int) -> None:
    net = fold(share_layers(perceptron(), init=FactorInit("normal", 0.2), templates=templates))
    layers = (1, 4, 7, 10)
    with torch.no_grad():
        for number in layers:
            net[number].weight += 0.01 * torch.randn(8, 8, dtype=torch.float64)  # so that no fit is exact
    fitted = share_layers(net, templates=templates, fit_to_weights=True)
    assert 1e-3 < max(sharing_error(fitted, net).values()) < 4e-2
    error = sum((fitted[n].expanded_weight()[0] - net[n].weight.detach()).square().sum() for n in layers)
    names = ("r", "s") if templates == 1 else ("r", "s", "mix")
    parameters = [fitted[1].weight, *(getattr(fitted[n], name) for n in layers for name in names)]
    for gradient in torch.autograd.grad(error, parameters):
        assert gradient.abs().max() < 1e-3
    for number in layers:
        assert 0.3 < float(fitted[number].r.detach().abs().mean()) < 3


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_templates_that_are_mixed_exactly_are_found(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(*[nn.Linear(8, 8) for _ in range(8)]).double()
    mixed = share_layers(net, templates=2, init=FactorInit("normal", 0.3))
    with torch.no_grad():
        for layer in mixed:
            layer.mix.copy_(torch.randn_like(layer.mix))
    exact = fold(mixed)
    assert max(sharing_error(share_layers(exact, templates=2, fit_to_weights=True), exact).values()) < 1e-6


@pytest.mark.parametrize("zero", ["a channel of all", "a layer", "all"])
@pytest.mark.parametrize("templates", [1, 2])
@pytest.mark.parametrize("factors", ["rank1", "scalar", "none"])
def test_weights_that_are_zero_are_fitted_and_can_be_learned(zero: str, templates: int, factors: Any) -> None:
    net = perceptron()
    for number in (1, 4, 7, 10):
        if zero == "a channel of all":
            net[number].weight.data[2] = 0
        elif zero == "all" or number == 4:
            net[number].weight.data.zero_()
    found = share_layers(net, factors=factors, templates=templates, fit_to_weights=True)
    if zero == "a layer" and factors == "none" and templates == 1:
        return  # it is not zero
    for number in (1, 4, 7, 10) if zero != "a layer" else (4,):
        rows = slice(2, 3) if zero == "a channel of all" else slice(None)
        assert bool((fold(found)[number].weight[rows] == 0).all())
    found(inputs((4, 5))).square().sum().backward()
    if zero == "a layer":
        own = (getattr(found[4], name) for name in ("s", "r", "mix"))
        assert any(bool((factor.grad != 0).all()) for factor in own if factor is not None)
    else:
        gradient = found[1].weight.grad if zero == "all" else found[1].weight.grad[..., 2, :]
        assert bool((gradient != 0).any())


def test_the_size_of_weights_is_no_matter() -> None:
    for size in (1e-170, 1e170):
        net = fold(share_layers(perceptron(), init="normal"))
        for number in (1, 4, 7, 10):
            net[number].weight.data *= size
        small = share_layers(net, fit_to_weights=True)
        for number in (1, 4, 7, 10):
            torch.testing.assert_close(fold(small)[number].weight, net[number].weight, rtol=1e-6, atol=0.0)


def test_attention_shares_its_projections_where_layers_are_rank1() -> None:
    net = share_layers(encoder())
    first, second = (net.layers[number].self_attn for number in (0, 1))
    assert first.in_proj_weight is second.in_proj_weight
    assert first.out_proj.weight is second.out_proj.weight
    assert first.q_r is not second.q_r
    left = describe_sharing(share_layers(encoder(), factors="scalar"))
    assert "not shared: layers.0.self_attn (MultiheadAttention 24x8)" in left


def test_groups_of_convolutions_and_transposed_ones_share_and_fit() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        *[nn.Conv2d(4, 4, 3, padding=1, groups=2) for _ in range(3)],
        *[nn.ConvTranspose2d(4, 4, 3, padding=1, groups=2) for _ in range(2)],
        *[nn.Conv2d(4, 4, 3, padding=1, dilation=1, stride=stride) for stride in (1, 2)],
    ).double()
    shared = share_layers(net, init=FactorInit("normal", 0.3))
    assert shared[0].weight is shared[2].weight is not shared[3].weight
    assert shared[3].weight is shared[4].weight is not shared[5].weight
    assert shared[5].weight is shared[6].weight
    exact = fold(shared)
    assert max(sharing_error(share_layers(exact, fit_to_weights=True), exact).values()) < 1e-6
    close(exact(inputs((2, 4, 6, 6))), shared(inputs((2, 4, 6, 6))), 1e-12)


def test_what_is_kept() -> None:
    net = perceptron()
    net[4].weight.requires_grad_(False)
    net[7].eval()
    calls: list[str] = []
    net[1].register_forward_hook(lambda *_: calls.append("hook"))
    shared = share_layers(net)
    assert type(shared[4]) is nn.Linear  # frozen: no partner
    assert shared[1].weight is shared[7].weight
    shared(inputs((4, 5)))
    assert calls == ["hook"]
    single = share_layers(net.float())
    assert single[1].r.dtype == torch.float32
    assert type(share_layers(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)))[1]) is Rank1Conv2d


def test_a_tie_of_the_users_stays_one() -> None:
    net = perceptron()
    net[4].weight = net[1].weight
    shared = share_layers(net)
    assert type(shared[1]) is type(shared[4]) is nn.Linear
    assert shared[1].weight is shared[4].weight
    assert shared[7].weight is shared[10].weight
    net = perceptron()
    net[4] = net[1]  # one module, which counts as one layer
    shared = share_layers(net)
    assert shared[4] is shared[1]
    assert type(shared[1]) is Rank1Linear
    assert shared[1].weight is shared[7].weight
    plain = fold(shared)
    assert plain[4] is plain[1]


def test_what_it_says() -> None:
    assert describe_sharing(share_layers(perceptron(), templates=2)).splitlines() == [
        "2 templates 8x8: 1, 4, 7, 10",
        "not shared: 0 (Linear 8x5), 13 (Linear 3x8)",
    ]


def pair(*shapes: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(*shape) for shape in shapes])


def no_number() -> nn.Sequential:
    net = perceptron()
    net[4].weight.data[1, 2] = torch.nan
    return net


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no partner": (
        lambda: share_layers(pair((4, 4), (4, 3))),
        r"no layers to share for which='all': no two layers .* there are Linear 4x4, Linear 3x4$",
    ),
    "no layer": (lambda: share_layers(nn.ReLU()), "there are no layers"),
    "no match": (lambda: share_layers(perceptron(), ["head"]), r"pattern 'head' matches no layer .* Linear 8x8 \(4\)"),
    "a word": (lambda: share_layers(perceptron(), "erly"), "pattern 'erly' matches no layer"),
    "shapes": (
        lambda: share_layers(perceptron(), ["0", "1", "4"]),
        "0 has no partner of equal shape .* named with it: Linear 8x5, ",
    ),
    "twice": (
        lambda: share_layers(perceptron(), [["1", "4"], ["4", "7"]]),
        "4 is in two sets of patterns, and a layer can share only one",
    ),
    "already": (
        lambda: share_layers(share_layers(perceptron(), "early"), ["4", "7"]),
        "4 already shares its weight with 1: name it once",
    ),
    "all again": (lambda: share_layers(share_layers(perceptron())), "1, 4, 7, 10 already share theirs"),
    "too few": (
        lambda: share_layers(perceptron(), templates=4),
        r"no layers to share: 4 templates require more than 4 layers of equal shape.* there are Linear 8x8 \(4\)$",
    ),
    "attention": (
        lambda: share_layers(encoder(), ["layers.*.self_attn"], factors="scalar"),
        r"attention requires factors 'rank1', one template and no fit.* there are MultiheadAttention 24x8 \(3\)$",
    ),
    "no norm to share": (
        lambda: share_layers(pair((4, 4), (4, 4)), norm="shared"),
        'norm="shared" requires norms that follow the layers that share, and none was',
    ),
    "templates": (
        lambda: share_layers(perceptron(), templates=0),
        "templates must be an integer of at least 1, and is 0",
    ),
    "factors": (lambda: share_layers(perceptron(), factors="rank-1"), "unknown factors 'rank-1'"),  # type: ignore[arg-type]
    "norm": (lambda: share_layers(perceptron(), norm="one"), "unknown norm of layers 'one'"),  # type: ignore[arg-type]
    "predicate": (
        lambda: share_layers(perceptron(), lambda *_: False),
        "no layers to share for the predicate: no two layers have weights of equal type and shape; there",
    ),
    "no number": (
        lambda: share_layers(no_number(), fit_to_weights=True),
        "^the weight of 4 contains NaN or infinity, and cannot be fitted",
    ),
    "no number in a block": (
        lambda: share_groups(no_number()[4], 2, fit_to_weights=True),
        "^the weight of the network itself contains NaN or infinity, and cannot be fitted",
    ),
    "unknown parameter": (
        lambda: fold(share_layers(perceptron()), parameters={"q": torch.zeros(1)}),
        "the network has no parameter q",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_clear_line(what: str) -> None:
    refused, message = REFUSED[what]
    with pytest.raises(InputError, match=message) as caught:
        refused()
    assert "\n" not in str(caught.value)
