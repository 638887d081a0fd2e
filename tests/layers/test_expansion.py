"""Weights with blocks, templates, scales or no factors, against explicitly computed weights."""

from typing import Any

import pytest
import torch
from explicit import close, same_with_gradients
from torch import Tensor, nn
from torch.nn import functional as F

from bayes_share.layers import Rank1Conv2d, Rank1ConvTranspose2d, Rank1Layer, Rank1Linear, expand_weight

OUT, IN, OUTS, INS, TEMPLATES = 6, 4, 3, 2, 3


def random(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, dtype=torch.float64))


def make(kind: type, *kernel: int, members: int, blocks: bool, templates: bool, factors: str) -> Rank1Layer:
    """A layer with 4 input and 6 output channels, with random values in all parameters."""
    torch.manual_seed(0)
    layer: Rank1Layer = kind(IN, OUT, *kernel, ensemble_size=members).double()
    transposed = isinstance(layer, nn.ConvTranspose2d)
    out, into = (OUT // OUTS, IN // INS) if blocks else (OUT, IN)
    layer.weight = random(
        *((TEMPLATES,) if templates else ()), *((into, out) if transposed else (out, into)), *kernel * 2
    )
    r, s = (
        random(members, *((OUTS, INS) if blocks else ()), into),
        random(members, *((OUTS, INS) if blocks else ()), out),
    )
    if factors != "rank1":
        r, s = None, random(members, 1) if factors == "scalar" else None
    layer.set_factors(r, s, random(members, TEMPLATES) if templates else None)
    layer.bias = random(members, OUT)
    return layer


def written_out(layer: Rank1Layer, member: int) -> Tensor:
    """The weight of a member, computed block by block and channel by channel."""
    transposed = isinstance(layer, nn.ConvTranspose2d)
    base = (
        layer.weight if layer.mix is None else sum(m * t for m, t in zip(layer.mix[member], layer.weight, strict=True))
    )
    base = base.transpose(0, 1) if transposed else base  # [out, in, ...]
    if layer.s is None:
        whole = base
    elif layer.r is None:
        whole = layer.s[member, 0] * base
    elif layer.r.ndim == 2:
        whole = torch.stack(
            [torch.stack([layer.s[member, i] * layer.r[member, j] * base[i, j] for j in range(IN)]) for i in range(OUT)]
        )
    else:
        out, into = OUT // OUTS, IN // INS
        whole = torch.stack(
            [
                torch.stack(
                    [
                        layer.s[member, i // out, j // into, i % out]
                        * layer.r[member, i // out, j // into, j % into]
                        * base[i % out, j % into]
                        for j in range(IN)
                    ]
                )
                for i in range(OUT)
            ]
        )
    return whole.transpose(0, 1) if transposed else whole


def plainly(layer: Rank1Layer, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    apply: Any = {Rank1Linear: F.linear, Rank1Conv2d: F.conv2d, Rank1ConvTranspose2d: F.conv_transpose2d}[type(layer)]
    return apply(x, weight, bias)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    ("blocks", "templates", "factors"),
    [
        (False, False, "none"),
        (False, False, "scalar"),
        (False, False, "rank1"),
        (False, True, "none"),
        (False, True, "scalar"),
        (False, True, "rank1"),
        (True, False, "rank1"),
        (True, True, "rank1"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "kernel"),
    [(Rank1Linear, ()), (Rank1Conv2d, (3,)), (Rank1ConvTranspose2d, (3,))],
    ids=lambda value: str(value),
)
def test_outputs_and_gradients_match_the_explicit_weights(
    kind: type, kernel: tuple[int, ...], blocks: bool, templates: bool, factors: str, members: int
) -> None:
    layer = make(kind, *kernel, members=members, blocks=blocks, templates=templates, factors=factors)
    # Without factors and templates, all members have the same weight.
    x = torch.randn(members * 2, IN, *((5, 5) if kernel else ()), dtype=torch.float64, requires_grad=True)
    rows = range(members)
    used = [written_out(layer, member) for member in rows]
    expected = torch.cat(
        [plainly(layer, x[2 * m : 2 * m + 2], used[m], layer.bias[m]) for m in rows],
    )
    same_with_gradients(layer(x), expected, [x, layer.weight, layer.r, layer.s, layer.mix, layer.bias])
    for member in rows:
        close(layer.member_tensors(member)["weight"], used[member])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("templates", [False, True])
def test_the_weight_of_several_terms_of_blocks_is_the_sum_of_the_terms(transposed: bool, templates: bool) -> None:
    base = random(*((TEMPLATES,) if templates else ()), *((2, 3) if transposed else (3, 2)), 2)
    r, s = random(4, 3, OUTS, INS, 2), random(4, 3, OUTS, INS, 3)
    mix = random(4, TEMPLATES) if templates else None
    terms = [expand_weight(base, r[:, k], s[:, k], transposed=transposed, mix=mix) for k in range(3)]
    found = expand_weight(base, r[:, 0], s[:, 0], transposed=transposed, mix=mix, more=(r[:, 1:], s[:, 1:]))
    close(found, sum(terms))  # type: ignore[arg-type]


def test_block_factors_with_one_row_per_input_row_can_be_passed_in() -> None:
    layer = make(Rank1Linear, members=2, blocks=True, templates=True, factors="rank1")
    x = torch.randn(6, IN, dtype=torch.float64)
    assert layer.r is not None
    r = layer.r.detach().repeat_interleave(3, 0) * torch.randn(6, 1, 1, 1, dtype=torch.float64)
    found = torch.func.functional_call(layer, {"r": r}, (x,))
    for row in range(6):
        layer.r.data[row // 3] = r[row]
        close(found[row], F.linear(x[row], written_out(layer, row // 3), layer.bias[row // 3]))


@pytest.mark.parametrize("blocks", [False, True])
def test_remove_factors_gives_the_equivalent_plain_layer(blocks: bool) -> None:
    layer = make(Rank1Conv2d, 3, members=1, blocks=blocks, templates=True, factors="rank1")
    x = torch.randn(2, IN, 5, 5, dtype=torch.float64)
    expected, fan_in = layer(x), layer.fan_in()
    layer.remove_factors()
    assert type(layer) is nn.Conv2d
    assert sorted(dict(layer.named_parameters())) == ["bias", "weight"]
    close(layer(x), expected, 1e-12)
    assert layer.weight[0].numel() == fan_in


@pytest.mark.parametrize("device_dtype", [torch.bfloat16])
def test_autocast_applies_to_all_forms_of_sharing(device_dtype: torch.dtype) -> None:
    for factors, blocks in (("none", False), ("scalar", False), ("rank1", True)):
        layer = make(Rank1Linear, members=1, blocks=blocks, templates=True, factors=factors).float()
        with torch.autocast("cpu", device_dtype):
            assert layer(torch.randn(3, IN)).dtype == device_dtype
