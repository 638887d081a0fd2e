import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers.norm import FilterResponseNorm2d, ThresholdedLinearUnit
from bayes_share.models.blocks import NORMS
from bayes_share.models.mlp import mlp
from bayes_share.models.networks import NETWORKS, build_network, network_names
from bayes_share.models.resnet import BasicBlock, resnet20
from bayes_share.models.wide_resnet import PreActivationBlock, WideResNet

# (channels, height, width): handwritten digits, MNIST, CIFAR.
IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
SMALL = ["lenet", "mlp", "mlp3_20", "resnet8_12", "vgg11_8", "wide_resnet10_1"]
LARGE = {"resnet18": "batch", "resnet20": "frn", "vgg11": "none", "wide_resnet16_2": "group"}
"""Large networks, with the norm that is tested in the fast suite. The slow tests cover the other norms."""
SHALLOW = [*SMALL, *LARGE]
ALL = [*NETWORKS, "mlp3_20", "resnet8_12", "vgg11_8", "wide_resnet10_1", "wide_resnet16_2"]

# Combinations of network, norm and image size that raise; None stands for any size.
IMPOSSIBLE = {
    ("mlp", "frn", None),
    ("mlp3_20", "frn", None),
    ("resnet18", "frn", 8),
    ("vgg11", "frn", 8),
    ("vgg11_8", "frn", 8),
}

WITH_PARAMETERS = {
    nn.Linear,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    FilterResponseNorm2d,
    ThresholdedLinearUnit,
}


def possible(name: str, norm: str, side: int) -> bool:
    return not {(name, norm, None), (name, norm, side)} & IMPOSSIBLE


def slow_if(condition: bool, *values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow if condition else ())


CASES = [
    slow_if(norm != LARGE.get(name, norm), name, norm) for name in SHALLOW for norm in NORMS if possible(name, norm, 32)
]
# All norms with the smallest images, some of which are too small, and one norm in turn with each larger size.
SHAPES = [
    slow_if(place > 0 and list(NORMS)[(number + place) % len(NORMS)] != norm, name, norm, image)
    for number, name in enumerate(ALL)
    for norm in NORMS
    for place, image in enumerate(IMAGES)
]


def network(name: str, image: tuple[int, int, int] = (3, 32, 32), **options: Any) -> nn.Module:
    channels, height, width = image
    return build_network(name, num_classes=10, in_channels=channels, image_size=(height, width), **options)


def images(rows: int, image: tuple[int, int, int] = (3, 32, 32)) -> Tensor:
    return torch.randn(rows, *image, generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet20", 272_474),
        ("resnet32", 466_906),
        ("resnet56", 855_770),
        ("resnet110", 1_730_714),
        ("resnet18", 11_173_962),
        ("wide_resnet28_10", 36_479_194),
        ("wide_resnet28_1", 369_498),
        ("wide_resnet16_4", 2_748_890),
        # Kernels 9 * 1,024,192, norms 2 * 2752, and 512 * 10 + 10.
        ("vgg11", 9_228_362),
        # Three channels instead of one add 2 * 150 weights to 61,706.
        ("lenet", 62_006),
        ("mlp", 3072 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("mlp2_128", 3072 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("mlp4_20", 3072 * 20 + 20 + 3 * (20 * 20 + 20) + 20 * 10 + 10),
        ("resnet20_16", 272_474),
        # Per stage 9 (in * w + 5 w * w) and norms 2 * 6 w, the stem 27 * 12 + 24, two shortcuts, and the classifier.
        (
            "resnet20_12",
            (27 * 12 + 24)
            + (9 * 6 * 12 * 12 + 12 * 12)
            + (9 * (12 * 24 + 5 * 24 * 24) + 12 * 24 + 12 * 24 + 2 * 24)
            + (9 * (24 * 48 + 5 * 48 * 48) + 12 * 48 + 24 * 48 + 2 * 48)
            + (48 * 10 + 10),
        ),
        ("vgg11_64", 9_228_362),
        ("vgg11_8", 27 * 8 + 9 * 64 * (2 + 8 + 16 + 32 + 3 * 64) + 2 * 8 * 43 + 64 * 10 + 10),
    ],
)
def test_parameter_counts_match_the_formulas(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network(name).parameters()) == parameters


def test_lenet_for_mnist_has_its_published_size() -> None:
    assert sum(parameter.numel() for parameter in network("lenet", (1, 28, 28)).parameters()) == 61_706


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("resnet20", 19),
        ("resnet32", 31),
        ("resnet56", 55),
        ("resnet110", 109),
        ("resnet8", 7),
        ("resnet44_4", 43),
        ("resnet18", 17),
        ("vgg11", 8),
        ("wide_resnet28_1", 25),
        ("wide_resnet16_4", 13),
    ],
)
def test_number_of_convolutions_matches_the_depth_in_the_name(name: str, convolutions: int) -> None:
    # He et al. also count the classifier; Zagoruyko & Komodakis count the three projections instead.
    kernels = [module.kernel_size for module in network(name).modules() if isinstance(module, nn.Conv2d)]
    assert kernels.count((3, 3)) == convolutions


@pytest.mark.parametrize(("name", "norm", "image"), SHAPES)
def test_logits_have_the_expected_shape(name: str, norm: str, image: tuple[int, int, int]) -> None:
    if not possible(name, norm, image[1]):
        with pytest.raises(InputError):
            network(name, image, norm=norm)
        return
    logits = network(name, image, norm=norm).eval()(images(2, image))
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("size", [(5, 5), (7, 40), (33, 47), (64, 64)])
@pytest.mark.parametrize("name", SHALLOW)
def test_images_of_unusual_sizes_are_accepted(name: str, size: tuple[int, int]) -> None:
    image = (2, *size)
    options = {"num_classes": 3, "in_channels": 2, "image_size": size}
    assert build_network(name, **options).eval()(images(2, image)).shape == (2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_outputs_do_not_depend_on_other_rows_in_eval_mode(name: str, norm: str) -> None:
    net = network(name, norm=norm)
    net(images(8))  # gives the running statistics something to hold
    net.eval()
    x = images(4)
    other = x.clone()
    other[1:] = 100 * images(3)
    with torch.no_grad():
        expected, changed, alone = net(x), net(other), net(x[:1])
    torch.testing.assert_close(changed[0], expected[0], rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    torch.testing.assert_close(alone[0], expected[0], rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_gradients_reach_every_parameter(name: str, norm: str) -> None:
    net = network(name, norm=norm)
    nn.functional.cross_entropy(net(images(8)), torch.arange(8)).backward()
    without = [path for path, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name in ALL for norm in NORMS if possible(name, norm, 32)])
def test_parameters_belong_to_supported_modules(name: str, norm: str) -> None:
    with torch.device("meta"):
        net = network(name, norm=norm, dropout=0.5)
    holders = {type(module) for module in net.modules() if list(module.parameters(recurse=False))}
    assert holders <= WITH_PARAMETERS
    held = [id(p) for module in net.modules() for p in module.parameters(recurse=False)]
    assert len(held) == len(set(held))


@pytest.mark.parametrize(
    ("norm", "normalises", "activates"),
    [
        ("batch", nn.BatchNorm2d, nn.ReLU),
        ("frn", FilterResponseNorm2d, ThresholdedLinearUnit),
        ("group", nn.GroupNorm, nn.ReLU),
        ("none", None, nn.ReLU),
    ],
)
@pytest.mark.parametrize("name", ["resnet20", "wide_resnet16_1", "vgg11", "lenet"])
def test_each_norm_is_followed_by_its_activation(
    name: str, norm: str, normalises: type | None, activates: type
) -> None:
    net = network(name, norm=norm)
    modules = [type(module) for module in net.modules()]
    # The fully connected layers of LeNet have no feature maps, so they are followed by ReLU with any norm.
    flat = 2 if name == "lenet" else 0
    activations = {"resnet20": 19, "wide_resnet16_1": 13, "vgg11": 8, "lenet": 2}[name]
    assert modules.count(activates) == activations + (flat if activates is nn.ReLU else 0)
    norms = {"resnet20": 21, "wide_resnet16_1": 13, "vgg11": 8, "lenet": 2}[name]
    kinds = [kind for kind in modules if kind in (nn.BatchNorm2d, FilterResponseNorm2d, nn.GroupNorm)]
    assert kinds == ([] if normalises is None else [normalises] * norms)
    biased = {module.bias is not None for module in net.modules() if isinstance(module, nn.Conv2d)}
    assert biased == {normalises is None}


@pytest.mark.parametrize("name", ALL)
def test_default_norm_of_each_network(name: str) -> None:
    own = "none" if name in ("lenet", "mlp", "mlp3_20") else "batch"
    with torch.device("meta"):
        assert network(name).state_dict().keys() == network(name, norm=own).state_dict().keys()


@pytest.mark.parametrize(("channels", "groups"), [(64, 8), (16, 8), (12, 6), (6, 6), (11, 1), (10, 5)])
def test_number_of_groups_divides_the_channels(channels: int, groups: int) -> None:
    norm = NORMS["group"].layer(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


def test_convolutions_have_he_initialisation() -> None:
    net = resnet20(norm="none")
    conv = net.get_submodule("stages.6.residual.3")
    assert isinstance(conv, nn.Conv2d)
    assert conv.weight.shape == (64, 64, 3, 3)
    assert conv.bias is not None
    assert not conv.bias.any()
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    stem = net.stem[0]
    assert isinstance(stem, nn.Conv2d)
    # The variance depends on the fan-out, 16 * 9, not on the fan-in, 3 * 9.
    assert stem.weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.2)


def test_batch_norms_are_initialised_with_weight_1_and_bias_0() -> None:
    for module in network("resnet20").modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_basic_block_matches_its_formula() -> None:
    block = BasicBlock(NORMS["none"], 4, 8, 2)
    x = images(2, (4, 6, 6))
    first, _, _, second, _ = block.residual
    expected = torch.relu(second(torch.relu(first(x))) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected)
    assert expected.shape == (2, 8, 3, 3)


def test_basic_block_with_zero_residual_is_a_relu() -> None:
    block = BasicBlock(NORMS["none"], 4, 4, 1)
    for parameter in block.residual[3].parameters():
        nn.init.zeros_(parameter)
    x = images(2, (4, 6, 6))
    torch.testing.assert_close(block(x), x.relu())


def test_pre_activation_block_matches_its_formula() -> None:
    block = PreActivationBlock(NORMS["batch"], 0.0, 4, 8, 2).eval()
    x = images(2, (4, 6, 6))
    norm = (1 + 1e-5) ** -0.5
    activated = torch.relu(x * norm)
    first, second, projection = block.residual[0], block.residual[4], block.projection
    assert projection is not None
    expected = second(torch.relu(first(activated) * norm)) + projection(activated)
    torch.testing.assert_close(block(x), expected)


def test_pre_activation_block_with_zero_residual_is_the_identity() -> None:
    block = PreActivationBlock(NORMS["batch"], 0.0, 4, 4, 1)
    nn.init.zeros_(block.residual[4].weight)  # type: ignore[arg-type]
    x = images(2, (4, 6, 6))
    assert block.projection is None
    torch.testing.assert_close(block(x), x)


def test_wide_resnet_places_dropout_between_the_convolutions() -> None:
    net = network("wide_resnet16_2", dropout=0.3)
    assert isinstance(net, WideResNet)
    blocks = list(net.stages)
    assert len(blocks) == 6
    for block in blocks:
        kinds = [type(module) for module in block.residual]  # type: ignore[union-attr]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout, nn.Conv2d]
    assert sum(isinstance(module, nn.Dropout) for module in net.modules()) == len(blocks)


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (7, 21)])
def test_lenet_zero_pads_small_images_on_all_sides(size: tuple[int, int]) -> None:
    small = network("lenet", (1, *size))
    full = network("lenet", (1, 32, 32))
    full.load_state_dict(small.state_dict())
    x = images(2, (1, *size))
    top, left = (32 - size[0]) // 2, (32 - size[1]) // 2
    padded = torch.zeros(2, 1, 32, 32)
    padded[:, :, top : top + size[0], left : left + size[1]] = x
    torch.testing.assert_close(small(x), full(padded))


@pytest.mark.parametrize("name", [*SMALL, "wide_resnet16_2", *(slow_if(True, name) for name in ("resnet18", "vgg11"))])
def test_dropout_acts_in_train_mode_only(name: str) -> None:
    plain = network(name, norm="none")
    dropped = network(name, norm="none", dropout=0.5)
    dropped.load_state_dict(plain.state_dict())  # the same names, whatever the probability
    x = images(2)
    assert not torch.equal(dropped(x), dropped(x))
    torch.testing.assert_close(dropped.eval()(x), plain(x))
    assert torch.equal(plain(x), plain(x))
    assert not any(isinstance(module, nn.Dropout) for module in plain.modules())


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_loaded_and_copied_networks_have_equal_outputs(name: str, norm: str) -> None:
    net = network(name, norm=norm)
    net(images(4))
    copied = copy.deepcopy(net)
    loaded = network(name, norm=norm)
    x = images(2)
    with torch.no_grad():
        expected = net.eval()(x)
        assert not torch.equal(loaded.eval()(x), expected)
        loaded.load_state_dict(net.state_dict())
        assert torch.equal(loaded(x), expected)
        for parameter in net.parameters():
            parameter.zero_()
        assert torch.equal(copied.eval()(x), expected)


def test_the_same_seed_gives_the_same_network() -> None:
    torch.manual_seed(1)
    first = network("resnet20").state_dict()
    torch.manual_seed(1)
    second = network("resnet20").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_build_network_builds_a_wide_resnet_by_name() -> None:
    net = network("wide_resnet10_3")
    assert isinstance(net, WideResNet)
    assert len(net.stages) == 3
    assert net.classifier[-1].in_features == 64 * 3


@pytest.mark.parametrize("widths", [(9,), (20, 30, 40)])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_mlp_layers_have_the_given_widths(widths: tuple[int, ...], norm: str) -> None:
    net = mlp(widths, in_channels=1, image_size=(8, 8), norm=norm)
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    assert tuple(module.out_features for module in linear) == (*widths, 10)
    assert net(images(3, (1, 8, 8))).shape == (3, 10)


def test_network_names_contain_networks_and_families() -> None:
    families = ["mlpD_W", "resnetD", "resnetD_W", "vgg11_W", "wide_resnetD_W"]
    assert network_names() == [*NETWORKS, *families, "timm:NAME", "torchvision:NAME"]


@pytest.mark.parametrize(("one", "other"), [("resnet20", "resnet20_16"), ("vgg11", "vgg11_64"), ("mlp", "mlp2_128")])
def test_default_sizes_may_be_left_out_of_a_name(one: str, other: str) -> None:
    torch.manual_seed(1)
    first = network(one).state_dict()
    torch.manual_seed(1)
    second = network(other).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet34", "resnet34: the depth must be 6n + 2 (8, 14, 20, 26, ...), or 18 without a width, got 34"),
        ("resnet18_16", "the depth must be 6n + 2 (8, 14, 20, 26, ...), or 18 without a width, got 18"),
        ("resnet2", "resnet2: the depth must be 6n + 2"),
        ("resnet20_0", "resnet20_0: the width must be at least 1, got 0"),
        ("vgg11_0", "vgg11_0: the width must be at least 1, got 0"),
        ("mlp0_8", "mlp0_8: depth and width must be at least 1"),
        ("mlp3_0", "mlp3_0: depth and width must be at least 1"),
        ("mlp3", "unknown model 'mlp3': did you mean 'mlp'?"),
        ("vgg16", "unknown model 'vgg16'"),
        ("lenett", "unknown model 'lenett': did you mean 'lenet'?"),
        ("wide_resnt28_10", "unknown model 'wide_resnt28_10': did you mean 'wide_resnetD_W'?"),
        ("wide_resnet28", "unknown model 'wide_resnet28': did you mean 'wide_resnetD_W'?"),
        ("wide_resnet28-10", "wide_resnet28_10"),
        ("wide_resnet28_10\n", "wide_resnet28_10"),
        ("wide_resnetD_W", "wide_resnet28_10"),
        ("wide_resnet27_10", "wide_resnet27_10: the depth must be 6n + 4 (10, 16, 22, 28, ...), got 27"),
        ("wide_resnet4_1", "wide_resnet4_1: the depth must be 6n + 4"),
        ("wide_resnet0_1", "wide_resnet0_1: the depth must be 6n + 4"),
        ("wide_resnet28_0", "wide_resnet28_0: the width must be at least 1, got 0"),
    ],
)
def test_invalid_names_raise(name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        network(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "image", "options", "message"),
    [
        ("resnet20", (3, 32, 32), {"norm": "bach"}, "unknown norm 'bach': did you mean 'batch'?"),
        ("mlp", (3, 32, 32), {"norm": "bach"}, "unknown norm 'bach': did you mean 'batch'?"),
        (
            "mlp",
            (1, 8, 8),
            {"norm": "frn"},
            "no feature maps, which norm 'frn' requires: choose from batch, group, none",
        ),
        ("resnet20", (3, 4, 9), {"norm": "frn"}, "resnet20 with norm 'frn' requires images of at least 5x5, got 4x9"),
        ("resnet18", (1, 8, 8), {"norm": "frn"}, "resnet18 with norm 'frn' requires images of at least 9x9, got 8x8"),
        ("vgg11", (1, 8, 8), {"norm": "frn"}, "vgg11 with norm 'frn' requires images of at least 17x17, got 8x8"),
        ("wide_resnet10_1", (1, 4, 4), {"norm": "frn"}, "wide_resnet10_1 with norm 'frn' requires images of at least"),
        ("lenet", (1, 0, 8), {}, "lenet requires at least one class, one channel and one pixel"),
        ("lenet", (0, 8, 8), {}, "got 10 classes and images of 0x8x8"),
    ],
)
def test_unsupported_norms_and_image_sizes_raise(
    name: str, image: tuple[int, int, int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        network(name, image, **options)


@pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5, float("nan")])
@pytest.mark.parametrize("name", SHALLOW)
def test_dropout_out_of_range_raises(name: str, dropout: float) -> None:
    with pytest.raises(InputError, match="dropout must be at least 0 and below 1, got"):
        network(name, dropout=dropout)


@pytest.mark.parametrize(("name", "side"), [("resnet20", 5), ("resnet18", 9), ("vgg11", 17), ("wide_resnet10_1", 5)])
def test_smallest_image_size_for_filter_response_norm(name: str, side: int) -> None:
    with pytest.raises(InputError, match=f"at least {side}x{side}"):
        network(name, (1, side - 1, side - 1), norm="frn")
    net = network(name, (1, side, side), norm="frn")
    nn.functional.cross_entropy(net(images(8, (1, side, side))), torch.arange(8)).backward()
    first = next(net.parameters())
    assert first.grad is not None
    # With images one pixel smaller, the gradients of deep networks here would be in the thousands.
    assert 1e-2 < (first.grad.norm() / first.norm()).item() < 1e2


def test_mlp_with_groups_of_one_unit_raises() -> None:
    with pytest.raises(InputError, match="hidden layers of more than 8 units, got 8"):
        mlp((32, 8), norm="group")
