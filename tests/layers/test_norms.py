"""Norms with separate parameters per member, against one torch norm for each member."""

import pytest
import torch
from explicit import close, perturb, same_with_gradients
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import (
    FilterResponseNorm2d,
    MemberBatchNorm,
    MemberGroupNorm,
    MemberLayerNorm,
    ThresholdedLinearUnit,
)
from bayes_share.layers.factor_parameters import own_parameter

MEMBERS, BATCH, CHANNELS = 3, 4, 6
ROWS = MEMBERS * BATCH
BATCH_NORMS = [
    (nn.BatchNorm1d, ()),
    (nn.BatchNorm1d, (5,)),
    (nn.BatchNorm2d, (3, 4)),
    (nn.BatchNorm3d, (2, 3, 2)),
]


def rows(*shape: int, count: int = ROWS, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, CHANNELS, *shape, dtype=torch.float64, generator=generator)
    return (x + torch.arange(count).view(-1, *[1] * (x.ndim - 1)) / 10).requires_grad_()


def plain_members(layer: nn.Module, plain: list[nn.Module]) -> list[nn.Module]:
    """One torch norm per member, whose parameters and running statistics are views of the layer's."""
    for member, norm in enumerate(plain):
        for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
            own = getattr(layer, name)
            if name in ("weight", "bias"):
                delattr(norm, name)
                setattr(norm, name, own[member])
            else:
                tensor.copy_(own[member] if own.ndim else own)
    return plain


@pytest.mark.parametrize("momentum", [0.1, 0.9, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize(("kind", "shape"), BATCH_NORMS)
def test_batch_norm_equals_one_torch_norm_per_member(
    kind: type[nn.Module], shape: tuple[int, ...], track: bool, affine: bool, momentum: float | None
) -> None:
    options = {"eps": 1e-3, "momentum": momentum, "affine": affine, "track_running_stats": track}
    layer = perturb(MemberBatchNorm(CHANNELS, MEMBERS, **options).double())
    plain = plain_members(layer, [kind(CHANNELS, **options).double() for _ in range(MEMBERS)])
    for step, training in enumerate([True, True, False, True, False]):
        x = rows(*shape, seed=step)
        layer.train(training)
        parts = [norm.train(training)(part) for norm, part in zip(plain, x.chunk(MEMBERS), strict=True)]
        found = layer(x)
        same_with_gradients(found, torch.cat(parts), [x, layer.weight, layer.bias])
        if track:
            for name in ("running_mean", "running_var"):
                close(getattr(layer, name), torch.stack([getattr(norm, name) for norm in plain]))
            assert {int(norm.num_batches_tracked) for norm in plain} == {int(layer.num_batches_tracked)}
        else:
            assert not list(layer.buffers())


def test_batch_norm_in_eval_mode_does_not_change_its_statistics() -> None:
    layer = perturb(MemberBatchNorm(CHANNELS, MEMBERS).double()).eval()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    layer(rows(3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize(("groups", "shape"), [(1, ()), (2, ()), (1, (5,)), (6, (5,)), (2, (3, 4)), (6, (3, 4))])
def test_group_norm_equals_one_torch_norm_per_member(groups: int, shape: tuple[int, ...]) -> None:
    layer = perturb(MemberGroupNorm(groups, CHANNELS, MEMBERS, eps=1e-3).double())
    plain = plain_members(layer, [nn.GroupNorm(groups, CHANNELS, eps=1e-3).double() for _ in range(MEMBERS)])
    x = rows(*shape)
    expected = torch.cat([norm(part) for norm, part in zip(plain, x.chunk(MEMBERS), strict=True)])
    same_with_gradients(layer(x), expected, [x, layer.weight, layer.bias])


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}], ids=str)
@pytest.mark.parametrize(
    ("normalized_shape", "shape"),
    [(6, ()), (5, (5,)), (4, (3, 4)), ((3, 4), (3, 4)), ([6, 3, 4], (3, 4)), ((6,), ())],
    ids=str,
)
def test_layer_norm_equals_one_torch_norm_per_member(
    normalized_shape: int | tuple[int, ...] | list[int], shape: tuple[int, ...], options: dict
) -> None:
    options = {"eps": 1e-3, **options}
    layer = perturb(MemberLayerNorm(normalized_shape, MEMBERS, **options).double())
    plain = plain_members(layer, [nn.LayerNorm(normalized_shape, **options).double() for _ in range(MEMBERS)])
    x = rows(*shape)
    expected = torch.cat([norm(part) for norm, part in zip(plain, x.chunk(MEMBERS), strict=True)])
    same_with_gradients(layer(x), expected, [x, layer.weight, layer.bias])
    assert (layer.bias is None) is (plain[0].bias is None)
    assert len(list(layer.parameters())) == len(list(nn.LayerNorm(normalized_shape, **options).parameters()))


@pytest.mark.parametrize("bias", [True, False])
def test_converting_a_torch_layer_norm_keeps_its_outputs(bias: bool) -> None:
    plain = perturb(nn.LayerNorm((3, 4), eps=1e-3, bias=bias).double())
    x = rows(3, 4)
    expected = plain(x)
    plain.__class__, plain.ensemble_size = MemberLayerNorm, MEMBERS
    for name in plain.member_parameters:
        if getattr(plain, name) is not None:
            setattr(plain, name, own_parameter(getattr(plain, name), MEMBERS))
    close(plain(x), expected)
    assert plain.weight.shape == (MEMBERS, 3, 4)
    assert repr(plain) == repr(MemberLayerNorm((3, 4), MEMBERS, 1e-3))


def test_layer_norm_of_an_input_without_a_row_axis_raises() -> None:
    with pytest.raises(InputError, match=r"shape \[6\] has no row axis"):
        MemberLayerNorm(6, MEMBERS)(torch.randn(6))


def test_layer_norm_accepts_bfloat16_under_autocast() -> None:
    layer, x = MemberLayerNorm(CHANNELS, MEMBERS), rows().float()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x.bfloat16())
    torch.testing.assert_close(found.float(), layer(x), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("members", [None, 1, MEMBERS])
def test_filter_response_norm_matches_its_formula(members: int | None) -> None:
    layer = perturb(FilterResponseNorm2d(CHANNELS, eps=1e-2, ensemble_size=members).double())
    x = rows(3, 4)
    weight, bias = layer.weight.view(-1, CHANNELS), layer.bias.view(-1, CHANNELS)
    results = []
    for row in range(ROWS):
        member = row * len(weight) // ROWS
        for channel in range(CHANNELS):
            pixels = x[row, channel]
            mean_square = (pixels**2).sum() / pixels.numel()
            normalised = pixels / torch.sqrt(mean_square + 1e-2)
            results.append(weight[member, channel] * normalised + bias[member, channel])
    same_with_gradients(layer(x), torch.stack(results).view(x.shape), [x, layer.weight, layer.bias])


@pytest.mark.parametrize("members", [None, 1, MEMBERS])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_thresholded_linear_unit_is_a_maximum(shape: tuple[int, ...], members: int | None) -> None:
    layer = perturb(ThresholdedLinearUnit(CHANNELS, members).double())
    x = rows(*shape)
    threshold = layer.threshold.view(-1, CHANNELS)
    each = [threshold[row * len(threshold) // ROWS].view(-1, *[1] * len(shape)) for row in range(ROWS)]
    expected = torch.where(x > torch.stack(each), x, torch.stack(each))
    same_with_gradients(layer(x), expected, [x, layer.threshold])


def test_a_new_thresholded_linear_unit_is_a_relu() -> None:
    x = rows(3)
    assert torch.equal(ThresholdedLinearUnit(CHANNELS).double()(x), x.relu())


@pytest.mark.parametrize("members", [None, MEMBERS])
def test_filter_response_norm_in_bfloat16_squares_in_float32(members: int | None) -> None:
    """Squares of large values are summed in float32, and the result has the dtype of the input."""
    x = (1000 * rows(16, 16)).bfloat16()
    layer = FilterResponseNorm2d(CHANNELS, ensemble_size=members)
    found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x.float()), rtol=2**-6, atol=0)


LAYERS = {
    "batch": MemberBatchNorm(CHANNELS, MEMBERS).double(),
    "group": MemberGroupNorm(2, CHANNELS, MEMBERS).double(),
    "filter response": FilterResponseNorm2d(CHANNELS, ensemble_size=MEMBERS).double(),
    "thresholded": ThresholdedLinearUnit(CHANNELS, MEMBERS).double(),
}


ALL_LAYERS = {**LAYERS, "layer": MemberLayerNorm((3, 4), MEMBERS).double()}


@pytest.mark.parametrize("layer", ALL_LAYERS.values(), ids=ALL_LAYERS)
def test_rows_that_do_not_divide_among_the_members_raise(layer: nn.Module) -> None:
    with pytest.raises(InputError, match=f"{ROWS + 1} rows do not divide among {MEMBERS}"):
        layer(rows(3, 4, count=ROWS + 1))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_channels_last_memory_format_is_kept(layer: nn.Module) -> None:
    x = rows(3, 4).detach()
    found = layer(x.to(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    close(found, layer(x))


@pytest.mark.parametrize("layer", ALL_LAYERS.values(), ids=ALL_LAYERS)
def test_the_members_own_parameters_are_named(layer: nn.Module) -> None:
    for name, parameter in layer.named_parameters():
        assert name in layer.member_parameters
        assert parameter.shape == (MEMBERS, *getattr(layer, "normalized_shape", (CHANNELS,)))
    assert f"ensemble_size={MEMBERS}" in repr(layer)
