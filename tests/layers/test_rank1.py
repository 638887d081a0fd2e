"""Rank-1 layers against torch's operations with the explicit weight of each member."""

from collections.abc import Callable

import pytest
import torch
from explicit import close, member_weight, perturb, same_with_gradients
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bayes_share.errors import InputError
from bayes_share.layers import (
    FactorInit,
    Rank1Conv1d,
    Rank1Conv2d,
    Rank1Conv3d,
    Rank1ConvTranspose1d,
    Rank1ConvTranspose2d,
    Rank1ConvTranspose3d,
    Rank1Layer,
    Rank1Linear,
    factored,
)

MEMBERS, BATCH = 3, 4
ROWS = MEMBERS * BATCH

CONVOLUTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "stride": {"stride": (2, 1), "padding": 1},
    "same": {"padding": "same"},
    "same with an even kernel": {"padding": "same", "kernel_size": (3, 4), "dilation": (1, 2)},
    "valid": {"padding": "valid", "kernel_size": (1, 3)},
    "reflect": {"padding": (1, 2), "padding_mode": "reflect"},
    "circular": {"padding": 2, "padding_mode": "circular", "stride": 2},
    "replicate": {"padding": "same", "padding_mode": "replicate"},
    "dilation": {"dilation": (2, 1), "padding": (2, 0)},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "padding": 1},
    "depthwise without bias": {"groups": 4, "padding_mode": "reflect", "padding": 1, "bias": False},
}

PLAIN = {
    Rank1Conv1d: nn.Conv1d,
    Rank1Conv2d: nn.Conv2d,
    Rank1Conv3d: nn.Conv3d,
    Rank1ConvTranspose1d: nn.ConvTranspose1d,
    Rank1ConvTranspose2d: nn.ConvTranspose2d,
    Rank1ConvTranspose3d: nn.ConvTranspose3d,
}
# Convolutions other than Conv2d: class, kernel size, other options, and the output_size of the call.
OTHER_CONVOLUTIONS = {
    "1d": (Rank1Conv1d, 3, {}, None),
    "1d, stride and padding": (Rank1Conv1d, 3, {"stride": 2, "padding": 2, "bias": False}, None),
    "1d, same with an even kernel": (Rank1Conv1d, 4, {"padding": "same", "dilation": 3}, None),
    "1d, reflect": (Rank1Conv1d, 4, {"padding": "same", "padding_mode": "reflect"}, None),
    "1d, circular and groups": (Rank1Conv1d, 3, {"padding": 2, "padding_mode": "circular", "groups": 2}, None),
    "3d": (Rank1Conv3d, 2, {}, None),
    "3d, all": (Rank1Conv3d, (1, 2, 3), {"stride": (1, 2, 1), "padding": (0, 1, 2), "groups": 2}, None),
    "3d, same with even kernels": (Rank1Conv3d, (2, 3, 4), {"padding": "same", "bias": False}, None),
    "3d, replicate": (Rank1Conv3d, 3, {"padding": "same", "padding_mode": "replicate", "groups": 4}, None),
    "transposed 1d": (Rank1ConvTranspose1d, 3, {}, None),
    "transposed 1d, all": (
        Rank1ConvTranspose1d,
        3,
        {"stride": 3, "padding": 2, "output_padding": 2, "groups": 2, "dilation": 2},
        None,
    ),
    "transposed 1d, output size": (Rank1ConvTranspose1d, 3, {"stride": 3, "bias": False}, [17]),
    "transposed 2d": (Rank1ConvTranspose2d, (3, 2), {}, None),
    "transposed 2d, groups": (Rank1ConvTranspose2d, 3, {"stride": 2, "padding": 1, "groups": 2}, None),
    "transposed 2d, depthwise": (Rank1ConvTranspose2d, 2, {"groups": 4, "output_padding": (0, 1), "stride": 2}, None),
    "transposed 2d, output size": (Rank1ConvTranspose2d, 3, {"stride": (2, 3), "groups": 2}, [12, 16]),
    "transposed 3d": (Rank1ConvTranspose3d, 2, {"bias": False}, None),
    "transposed 3d, all": (
        Rank1ConvTranspose3d,
        (1, 2, 3),
        {"stride": (1, 2, 1), "padding": (0, 1, 1), "output_padding": (0, 1, 0), "groups": 2},
        None,
    ),
    "transposed 3d, output size": (Rank1ConvTranspose3d, 2, {"stride": 2}, [10, 11, 8]),
}


@pytest.fixture(autouse=True, params=["activations", "weights"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with both ways of computing, which replace "auto"."""

    def decide(way: str, *sizes: object) -> bool:
        return (request.param if way == "auto" else way) == "weights"

    monkeypatch.setattr(factored, "folds_weights", decide)


def conv(kernel_size: int | tuple[int, int] = 3, **options: object) -> Rank1Conv2d:
    layer = Rank1Conv2d(4, 8, kernel_size, ensemble_size=MEMBERS, dtype=torch.float64, **options)
    return perturb(layer)


def linear(bias: bool = True) -> Rank1Linear:
    return perturb(Rank1Linear(5, 7, bias, ensemble_size=MEMBERS, dtype=torch.float64))


def rows(*shape: int, count: int = ROWS) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, requires_grad=True)


def plain_conv(layer: Rank1Layer, *args: object) -> Callable[..., Tensor]:
    """torch's convolution with the options of a layer, as a function of rows, weight and bias."""
    names = ["kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"]
    options = {name: getattr(layer, name) for name in [*names, *["output_padding"] * layer.transposed]}
    plain = PLAIN[type(layer)](layer.in_channels, layer.out_channels, bias=False, dtype=torch.float64, **options)
    return lambda x, weight, bias: functional_call(plain, {"weight": weight, "bias": bias}, (x, *args))


def member_by_member(
    operation: Callable[..., Tensor],
    x: Tensor,
    weight: Tensor,
    r: Tensor,
    s: Tensor,
    bias: Tensor | None,
    groups: int,
    transposed: bool = False,
) -> Tensor:
    """Apply the plain operation to each row, with the weight from its r and s and the bias of its member."""
    count = len(x)
    results = []
    for row in range(count):
        factors = r[row * len(r) // count], s[row * len(s) // count]
        # The weight of a transposed convolution has the input channels first.
        of_row = member_weight(weight, *(reversed(factors) if transposed else factors), groups)
        of_bias = None if bias is None else bias[row * len(bias) // count]
        results.append(operation(x[row : row + 1], of_row, of_bias))
    return torch.cat(results)


def parameters(layer: Rank1Layer) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    return layer.weight, layer.r, layer.s, layer.bias


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_equals_torchs_convolution_of_each_member(options: dict) -> None:
    layer = conv(**options)
    x = rows(4, 7, 6)
    expected = member_by_member(plain_conv(layer), x, *parameters(layer), layer.groups)
    same_with_gradients(layer(x), expected, [x, *parameters(layer)])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    ("kind", "kernel_size", "options", "output_size"), OTHER_CONVOLUTIONS.values(), ids=OTHER_CONVOLUTIONS
)
def test_other_convolutions_equal_torchs_convolution_of_each_member(
    kind: type[Rank1Layer], kernel_size: object, options: dict, output_size: list[int] | None
) -> None:
    layer = perturb(kind(4, 8, kernel_size, ensemble_size=MEMBERS, dtype=torch.float64, **options))
    x = rows(4, *(5, 5, 4)[: layer.weight.ndim - 2])
    args = () if output_size is None else (output_size,)
    operation = plain_conv(layer, *args)
    expected = member_by_member(operation, x, *parameters(layer), layer.groups, layer.transposed)
    assert output_size is None or list(expected.shape[2:]) == output_size
    same_with_gradients(layer(x, *args), expected, [x, *parameters(layer)])
    for member, part in enumerate(x.chunk(MEMBERS)):
        tensors = layer.member_tensors(member)
        close(operation(part, tensors["weight"], tensors.get("bias")), expected.chunk(MEMBERS)[member])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("middle", [(), (6,), (2, 3)], ids=["row", "row and token", "two middle axes"])
def test_linear_equals_torchs_linear_of_each_member(middle: tuple[int, ...], bias: bool) -> None:
    layer = linear(bias)
    x = rows(*middle, 5)
    expected = member_by_member(F.linear, x, *parameters(layer), 1)
    same_with_gradients(layer(x), expected, [x, *parameters(layer)])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("uses_of_r", "uses_of_s"),
    [(ROWS, ROWS), (ROWS, MEMBERS), (MEMBERS, ROWS), (2 * MEMBERS, MEMBERS), (2 * MEMBERS, ROWS)],
)
@pytest.mark.parametrize("make", [linear, lambda bias: conv(groups=2, padding=1, bias=bias)], ids=["linear", "conv"])
def test_factors_with_one_row_per_input_row_can_be_passed_in(
    make: Callable[[bool], Rank1Layer], uses_of_r: int, uses_of_s: int, bias: bool
) -> None:
    layer = make(bias)
    in_channels, out_channels = layer.channels()
    r, s = rows(in_channels, count=uses_of_r), rows(out_channels, count=uses_of_s)
    is_linear = isinstance(layer, Rank1Linear)
    operation = F.linear if is_linear else plain_conv(layer)
    x = rows(*([5] if is_linear else [4, 5, 5]))
    expected = member_by_member(operation, x, layer.weight, r, s, layer.bias, getattr(layer, "groups", 1))
    same_with_gradients(functional_call(layer, {"r": r, "s": s}, x), expected, [x, layer.weight, r, s, layer.bias])


SMALL = {
    "linear": (lambda: Rank1Linear(3, 2, ensemble_size=2), (2, 3)),
    "conv": (lambda: Rank1Conv2d(2, 4, 2, groups=2, padding="same", ensemble_size=2), (2, 3, 2)),
    "transposed": (lambda: Rank1ConvTranspose1d(2, 2, 2, stride=2, ensemble_size=2), (2, 3)),
}


def small(name: str) -> tuple[Rank1Layer, Tensor]:
    make, shape = SMALL[name]
    return perturb(make().double()), rows(*shape, count=4)


@pytest.mark.parametrize("name", SMALL)
def test_first_and_second_derivatives_match_finite_differences(name: str) -> None:
    layer, x = small(name)
    names = [name for name, _ in layer.named_parameters()]

    def apply(x: Tensor, *values: Tensor) -> Tensor:
        return functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(apply, (x, *layer.parameters()), fast_mode=True)
    assert torch.autograd.gradgradcheck(apply, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("name", SMALL)
def test_an_in_place_activation_may_follow_the_layer(name: str) -> None:
    """As in VGG and SqueezeNet, where no norm is in between."""
    layer, x = small(name)
    wanted = [x, *layer.parameters()]
    found, expected = layer(x).relu_(), layer(x).relu()
    close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), wanted),
        torch.autograd.grad(expected.square().sum(), wanted),
        strict=True,
    ):
        close(one, other)


@pytest.mark.parametrize("name", SMALL)
def test_vmap_over_draws_and_inputs_equals_a_loop(name: str) -> None:
    """`vmap` over draws of the factors and over inputs, for the loss and its gradient."""
    layer, x = small(name)
    own = {name: p.detach() for name, p in layer.named_parameters()}
    draws = {name: torch.randn(3, *own[name].shape, dtype=torch.float64) for name in ("r", "s")}
    many = torch.stack([x, 2 * x, -x]).detach()

    def loss(factors: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, {**own, **factors}, x).square().sum()

    for axis in (None, 0):
        inputs = x.detach() if axis is None else many
        losses = torch.func.vmap(loss, in_dims=(0, axis))(draws, inputs)
        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, axis))(draws, inputs)
        for draw in range(3):
            factors = {name: factor[draw].clone().requires_grad_() for name, factor in draws.items()}
            expected = loss(factors, inputs if axis is None else inputs[draw])
            close(losses[draw], expected)
            of_factors = torch.autograd.grad(expected, list(factors.values()))
            for name, of_factor in zip(factors, of_factors, strict=True):
                close(gradients[name][draw], of_factor)
    assert torch.func.grad(loss)(own, x.detach()).keys() == own.keys()


@pytest.mark.parametrize("layer", [linear(), conv()], ids=["linear", "conv"])
def test_expanded_weight_has_the_weight_of_each_member(layer: Rank1Layer) -> None:
    each = [member_weight(layer.weight, layer.r[m], layer.s[m]) for m in range(MEMBERS)]
    close(layer.expanded_weight(), torch.stack(each))


@pytest.mark.parametrize(("layer", "shape"), [(linear(), (5,)), (conv(), (4, 5, 5))], ids=["linear", "conv"])
@pytest.mark.parametrize("count", [1, MEMBERS - 1, ROWS + 1])
def test_rows_that_do_not_divide_among_the_members_raise(layer: Rank1Layer, shape: tuple[int, ...], count: int) -> None:
    with pytest.raises(InputError, match=f"{count} rows do not divide among {MEMBERS}"):
        layer(rows(*shape, count=count))


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize(("kind", "sizes"), [(Rank1Linear, (2, 2)), (Rank1Conv2d, (2, 2, 1))])
def test_an_ensemble_size_below_1_raises(kind: type[Rank1Layer], sizes: tuple[int, ...], size: int) -> None:
    with pytest.raises(InputError, match="integer of at least 1"):
        kind(*sizes, ensemble_size=size)


@pytest.mark.parametrize(
    ("layer", "plain", "sizes"),
    [
        (Rank1Linear, nn.Linear, (3, 2)),
        (Rank1Linear, nn.Linear, (3, 2, False)),
        (Rank1Conv2d, nn.Conv2d, (3, 2, 3)),
    ],
)
def test_base_weights_are_initialised_as_in_torch(
    layer: type[Rank1Layer], plain: type[nn.Module], sizes: tuple[int, ...]
) -> None:
    torch.manual_seed(3)
    found = layer(*sizes, ensemble_size=MEMBERS, init=FactorInit("ones"))
    torch.manual_seed(3)
    expected = plain(*sizes)
    assert torch.equal(found.weight, expected.weight)
    assert found.r.shape == (MEMBERS, 3)
    assert found.s.shape == (MEMBERS, 2)
    if expected.bias is None:
        assert found.bias is None
    else:
        assert torch.equal(found.bias, expected.bias.expand(MEMBERS, 2))
    assert f"ensemble_size={MEMBERS}" in repr(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("kind", "sizes"), [(Rank1Linear, (3, 2)), (Rank1Conv2d, (3, 2, 1))])
def test_factors_have_the_dtype_and_device_of_the_weight(
    kind: type, sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    layer = kind(*sizes, ensemble_size=MEMBERS, dtype=dtype, device="meta")
    assert {(parameter.dtype, parameter.device.type) for parameter in layer.parameters()} == {(dtype, "meta")}


class DtypesOfProducts(TorchDispatchMode):
    """Records the dtypes of convolutions and matrix products, and counts casts of activations to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []
        self.casts_up = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if name in ("convolution", "mm", "addmm", "bmm", "baddbmm"):
            self.seen.extend(arg.dtype for arg in args if isinstance(arg, Tensor))
        elif name == "_to_copy" and args[0].dtype == torch.bfloat16 and kwargs.get("dtype") == torch.float32:
            self.casts_up += 1
        return operation(*args, **(kwargs or {}))


def test_autocast_keeps_activations_between_layers_in_bfloat16() -> None:
    network = nn.Sequential(
        Rank1Conv2d(3, 4, 3, ensemble_size=MEMBERS),
        nn.ReLU(),
        Rank1Conv2d(4, 2, 3, ensemble_size=MEMBERS, bias=False),
        nn.Flatten(),
        Rank1Linear(8, 5, ensemble_size=MEMBERS),
        Rank1Linear(5, 2, ensemble_size=MEMBERS),
    )
    outputs = []
    for layer in network:
        layer.register_forward_hook(lambda _layer, _inputs, output: outputs.append(output.dtype))
    with DtypesOfProducts() as products, torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(ROWS, 3, 6, 6)).float().square().sum()
    assert set(outputs) == {torch.bfloat16}
    assert len(products.seen) >= 4
    assert set(products.seen) == {torch.bfloat16}
    # The only cast is the one before the loss.
    assert products.casts_up == 1
    loss.backward()
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"groups": 2}, {"padding_mode": "reflect", "padding": 1}])
def test_channels_last_memory_format_is_kept(options: dict) -> None:
    layer = conv(**options)
    x = rows(4, 7, 6).detach()
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    found = layer(x.to(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not expected.is_contiguous(memory_format=torch.channels_last)
    close(found, expected)


def test_an_input_of_another_dtype_raises() -> None:
    layer = Rank1Linear(3, 2, ensemble_size=2)
    for x in (torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 3, dtype=torch.float64)):
        with pytest.raises(InputError, match=r"the input is torch\.\w+ and the weight torch\.float32"):
            layer(x)


def test_gradients_of_factors_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer = Rank1Linear(16, 8, ensemble_size=2, way="weights")
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(64, 16)).square().sum().backward()
    assert not torch.equal(layer.r.grad, layer.r.grad.bfloat16().float())


def test_a_batch_may_be_empty() -> None:
    assert Rank1Linear(3, 2, ensemble_size=2)(torch.zeros(0, 3)).shape == (0, 2)


def test_a_transposed_convolution_accepts_output_size_as_a_keyword() -> None:
    layer = Rank1ConvTranspose2d(2, 3, 3, stride=2, ensemble_size=2)
    assert layer(torch.zeros(4, 2, 4, 4), output_size=[10, 10]).shape == (4, 3, 10, 10)
