"""Rank-1 attention against torch's attention with the explicit weights of each member."""

import pickle
from copy import deepcopy

import pytest
import torch
from explicit import close, member_weight, perturb, same_with_gradients
from torch import Tensor, nn
from torch.func import functional_call

from bayes_share.errors import InputError
from bayes_share.layers import FactorInit, MemberLayerNorm, Rank1Linear, Rank1MultiheadAttention, factored
from bayes_share.layers.attention import without_fast_paths
from bayes_share.layers.factor_parameters import own_parameter
from bayes_share.sharing import parameter_kinds

MEMBERS, BATCH, TARGETS, SOURCES, SIZE, HEADS = 3, 2, 4, 5, 6, 2
ROWS = MEMBERS * BATCH

OPTIONS = {
    "plain": {},
    "kdim and vdim": {"kdim": 5, "vdim": 3},
    "kdim": {"kdim": 5, "bias": False},
    "no bias": {"bias": False},
    "bias of keys and values": {"add_bias_kv": True},
    "attention to zero": {"add_zero_attn": True},
    "everything": {"kdim": 5, "vdim": 3, "add_bias_kv": True, "add_zero_attn": True, "dropout": 0.5},
}
MASKS = {
    "none": (),
    "mask 2-D bool": ("attn", "bool"),
    "mask 2-D float": ("attn", "float"),
    "mask 3-D bool": ("attn per row", "bool"),
    "mask 3-D float": ("attn per row", "float"),
    "padding bool": ("padding", "bool"),
    "padding float": ("padding", "float"),
    "both 2-D bool": ("attn", "padding", "bool"),
    "both 3-D float": ("attn per row", "padding", "float"),
    "causal": ("causal", "bool"),
    "causal and padding": ("causal", "padding", "bool"),
}
OUTPUTS = {
    "without attention weights": {"need_weights": False},
    "with attention weights": {},
    "with attention weights per head": {"average_attn_weights": False},
}


@pytest.fixture(autouse=True, params=["activations", "weights"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with both ways of computing, which replace "auto"."""

    def decide(way: str, *sizes: object) -> bool:
        return (request.param if way == "auto" else way) == "weights"

    monkeypatch.setattr(factored, "folds_weights", decide)


def attention(members: int = MEMBERS, **options: object) -> Rank1MultiheadAttention:
    return perturb(Rank1MultiheadAttention(SIZE, HEADS, ensemble_size=members, dtype=torch.float64, **options)).eval()


def inputs(layer: nn.MultiheadAttention, rows: int = ROWS, sources: int = SOURCES) -> tuple[Tensor, ...]:
    """Queries, keys and values in the layout that the layer expects."""
    sizes = (TARGETS, layer.embed_dim), (sources, layer.kdim), (sources, layer.vdim)
    tensors = [torch.randn(rows, *size, dtype=torch.float64) for size in sizes]
    return tuple((x if layer.batch_first else x.transpose(0, 1).contiguous()).requires_grad_() for x in tensors)


def masks(kinds: tuple[str, ...], sources: int = SOURCES) -> dict:
    """Mask arguments for the attention, with at least one unmasked key for each query."""

    def mask(*shape: int) -> Tensor:
        hidden = torch.rand(shape) < 0.4
        hidden[..., 0] = False
        return hidden if "bool" in kinds else torch.randn(shape, dtype=torch.float64)

    made: dict = {}
    if "attn" in kinds:
        made["attn_mask"] = mask(TARGETS, sources)
    if "attn per row" in kinds:
        made["attn_mask"] = mask(ROWS * HEADS, TARGETS, sources)
    if "causal" in kinds:
        made |= {"attn_mask": torch.ones(TARGETS, sources, dtype=torch.bool).triu(1), "is_causal": True}
    if "padding" in kinds:
        made["key_padding_mask"] = mask(ROWS, sources)
    return made


def member_parameters(layer: Rank1MultiheadAttention, member: int) -> dict[str, Tensor]:
    """The parameters of the plain attention equivalent to a member, with each projection computed explicitly."""

    def weight(base: Tensor, name: str) -> Tensor:
        return member_weight(base, getattr(layer, f"{name}_r")[member], getattr(layer, f"{name}_s")[member])

    out = layer.out_proj
    tensors = {"out_proj.weight": member_weight(out.weight, out.r[member], out.s[member])}
    if layer.in_proj_weight is None:
        tensors |= {f"{name}_proj_weight": weight(getattr(layer, f"{name}_proj_weight"), name) for name in "qkv"}
    else:
        bases = {name: layer.in_proj_weight[place * SIZE : (place + 1) * SIZE] for place, name in enumerate("qkv")}
        tensors["in_proj_weight"] = torch.cat([weight(base, name) for name, base in bases.items()])
    if layer.in_proj_bias is not None:
        tensors |= {"in_proj_bias": layer.in_proj_bias[member], "out_proj.bias": out.bias[member]}
    if layer.bias_k is not None:
        tensors |= {"bias_k": layer.bias_k, "bias_v": layer.bias_v}
    return tensors


def member_by_member(
    layer: Rank1MultiheadAttention, options: dict, tensors: tuple[Tensor, ...], call: dict
) -> tuple[Tensor, Tensor | None]:
    """The outputs of torch's attention for each member, on its rows and its part of the masks."""
    plain = nn.MultiheadAttention(SIZE, HEADS, dtype=torch.float64, **options).train(layer.training)
    axis = 0 if layer.batch_first else 1
    parts = zip(*(x.chunk(MEMBERS, axis) for x in tensors), strict=True)
    results, weights = [], []
    for member, part in enumerate(parts):
        own = dict(call)
        if own.get("attn_mask") is not None and own["attn_mask"].ndim == 3:
            own["attn_mask"] = own["attn_mask"].chunk(MEMBERS)[member]
        if "key_padding_mask" in own:
            own["key_padding_mask"] = own["key_padding_mask"].chunk(MEMBERS)[member]
        result, weight = functional_call(plain, member_parameters(layer, member), part, own)
        results.append(result)
        weights.append(weight)
    return torch.cat(results, axis), None if weights[0] is None else torch.cat(weights)


def joined(result: tuple[Tensor, Tensor | None]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in result if tensor is not None])


# All options with both masks, and all kinds of masks with the options "everything".
OPTIONS_AND_MASKS = {
    **{f"{name}, both masks": (options, MASKS["both 3-D float"]) for name, options in OPTIONS.items()},
    **{f"everything, {name}": (OPTIONS["everything"], kinds) for name, kinds in MASKS.items()},
    "plain, no mask": (OPTIONS["plain"], MASKS["none"]),
    "plain, causal": (OPTIONS["plain"], MASKS["causal"]),
}


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "tokens first"])
@pytest.mark.parametrize(("options", "kinds"), OPTIONS_AND_MASKS.values(), ids=OPTIONS_AND_MASKS)
def test_attention_equals_torchs_attention_of_each_member(
    options: dict, kinds: tuple[str, ...], batch_first: bool, outputs: dict
) -> None:
    options = {**options, "batch_first": batch_first}
    layer = attention(**options)
    sources = TARGETS if "causal" in kinds else SOURCES
    call = {**masks(kinds, sources), **outputs}
    tensors = inputs(layer, sources=sources)
    found = layer(*tensors, **call)
    expected = member_by_member(layer, options, tensors, call)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) is (other is None)
        assert one is None or one.shape == other.shape
    # torch's causal attention kernel does not attend to the key that the layer appends.
    unseen = ("bias_k", "bias_v") if kinds == MASKS["causal"] and "need_weights" in outputs else ()
    parameters = [parameter for name, parameter in layer.named_parameters() if name not in unseen]
    same_with_gradients(joined(found), joined(expected), [*tensors, *parameters])


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "tokens first"])
def test_self_attention_without_gradients_equals_torchs_attention_of_each_member(batch_first: bool) -> None:
    """In this case torch's attention has a fast path that reads the weights directly."""
    layer = attention(batch_first=batch_first)
    x = inputs(layer)[0].detach()
    with torch.no_grad():
        expected = member_by_member(layer, {"batch_first": batch_first}, (x, x, x), {})
        for one, other in zip(layer(x, x, x), expected, strict=True):
            close(one, other)


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
def test_gradient_of_a_learned_mask(outputs: dict) -> None:
    layer = attention(batch_first=True)
    tensors = inputs(layer)
    call = {"attn_mask": torch.randn(TARGETS, SOURCES, dtype=torch.float64, requires_grad=True), **outputs}
    expected = member_by_member(layer, {"batch_first": True}, tensors, call)
    same_with_gradients(joined(layer(*tensors, **call)), joined(expected), [call["attn_mask"]])


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
def test_dropout_equals_torchs_dropout(outputs: dict) -> None:
    """With one member dropout draws the same masks as torch, and none in eval mode."""
    layer = attention(1, dropout=0.4, batch_first=True).train()
    plain = nn.MultiheadAttention(SIZE, HEADS, dropout=0.4, batch_first=True, dtype=torch.float64)
    plain.load_state_dict(member_parameters(layer, 0))
    tensors = inputs(layer)
    results = []
    for module in (layer, plain):
        torch.manual_seed(3)
        results.append(joined(module(*tensors, **outputs)))
    close(*results)
    again = joined(layer(*tensors, **outputs))
    assert not torch.equal(again, results[0])
    assert torch.equal(joined(layer.eval()(*tensors, **outputs)), joined(layer(*tensors, **outputs)))


def test_dropout_has_the_same_rate_in_every_row() -> None:
    layer = attention(dropout=0.4).train()
    weights = torch.stack([layer(*inputs(layer), average_attn_weights=False)[1] for _ in range(50)])
    count = weights[:, 0].numel()
    error = (0.4 * 0.6 / count) ** 0.5
    for row in range(ROWS):
        assert abs((weights[:, row] == 0).double().mean().item() - 0.4) <= 5 * error


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "tokens first"])
@pytest.mark.parametrize("options", [{}, {"kdim": 5, "vdim": 3}], ids=["packed", "separate"])
@pytest.mark.parametrize("uses", [ROWS, MEMBERS])
def test_factors_with_one_row_per_input_row_can_be_passed_in(uses: int, options: dict, batch_first: bool) -> None:
    layer = attention(batch_first=batch_first, **options)
    names = [name for name, kind in parameter_kinds(layer).items() if kind == "factor"]
    sizes = {name: layer.get_parameter(name).shape[1] for name in names}
    factors = {name: torch.randn(uses, size).double().requires_grad_() for name, size in sizes.items()}
    tensors = inputs(layer)
    found, _ = functional_call(layer, factors, tensors, {"need_weights": False})
    axis = 0 if batch_first else 1
    rows = []
    for row in range(ROWS):
        own = {name: factor[row * uses // ROWS][None] for name, factor in factors.items()}
        member = row // BATCH
        biases = {name: layer.get_parameter(name)[member][None] for name in ("in_proj_bias", "out_proj.bias")}
        part = tuple(x.narrow(axis, row, 1) for x in tensors)
        rows.append(functional_call(layer, own | biases, part, {"need_weights": False})[0])
    same_with_gradients(found, torch.cat(rows, axis), [*tensors, *factors.values(), *layer.parameters()][: 3 + 8])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_member_tensors_are_the_parameters_of_the_plain_attention(options: dict) -> None:
    layer = attention(**options)
    for member in range(MEMBERS):
        found = dict(layer.member_tensors(member))
        found |= {f"out_proj.{name}": tensor for name, tensor in layer.out_proj.member_tensors(member).items()}
        expected = member_parameters(layer, member)
        assert set(found) == set(expected) == set(nn.MultiheadAttention(SIZE, HEADS, **options).state_dict())
        for name, tensor in expected.items():
            close(found[name], tensor)


def convert(module: nn.MultiheadAttention | nn.Linear, kind: type[nn.Module], init: FactorInit) -> None:
    """Convert a torch module in place, by the steps in the docstring of `Factored`."""
    module.__class__ = kind
    module.add_factors(MEMBERS, init)
    for part in module.modules():
        for name in part.member_parameters:
            if (shared := getattr(part, name)) is not None:
                setattr(part, name, own_parameter(shared, MEMBERS))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("trained", [True, False])
def test_converting_a_plain_attention_keeps_its_outputs(options: dict, trained: bool) -> None:
    plain = nn.MultiheadAttention(SIZE, HEADS, dtype=torch.float64, **options).requires_grad_(trained).eval()
    layer = deepcopy(plain)
    convert(layer, Rank1MultiheadAttention, FactorInit("ones"))
    tensors = inputs(layer)
    close(joined(layer(*tensors)), joined(plain(*tensors)))
    assert {parameter.requires_grad for parameter in layer.parameters()} == {trained}
    assert layer.ensemble_size == layer.out_proj.ensemble_size == MEMBERS
    assert type(layer.out_proj) is Rank1Linear
    assert {name: p.shape for name, p in layer.named_parameters()} == {
        name: p.shape for name, p in attention(**options).named_parameters()
    }


def test_an_unsupported_output_projection_raises() -> None:
    layer = nn.MultiheadAttention(SIZE, HEADS)
    layer.out_proj = nn.utils.parametrizations.weight_norm(nn.Linear(SIZE, SIZE))
    layer.__class__ = Rank1MultiheadAttention
    with pytest.raises(InputError, match="out_proj is a ParametrizedLinear cannot be converted"):
        layer.add_factors(MEMBERS, FactorInit())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_copied_saved_and_pickled_layers_have_equal_outputs(options: dict) -> None:
    layer = attention(**options)
    other = Rank1MultiheadAttention(SIZE, HEADS, ensemble_size=MEMBERS, **options).double().eval()
    other.load_state_dict(layer.state_dict())
    tensors = inputs(layer)
    for copy in (deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(joined(copy(*tensors)), joined(layer(*tensors)))
        assert repr(copy) == repr(layer)
    assert f"Attention(\n  ensemble_size={MEMBERS}" in repr(layer)


def test_factors_have_the_dtype_and_device_of_the_weights() -> None:
    layer = Rank1MultiheadAttention(SIZE, HEADS, ensemble_size=MEMBERS, dtype=torch.bfloat16, device="meta")
    assert {(p.dtype, p.device.type) for p in layer.parameters()} == {(torch.bfloat16, "meta")}
    layer = attention().to(torch.bfloat16)
    result, weights = layer(*(x.bfloat16() for x in inputs(layer)))
    assert result.dtype == weights.dtype == torch.bfloat16


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
def test_autocast_computes_in_bfloat16(outputs: dict) -> None:
    layer = attention(add_bias_kv=True, add_zero_attn=True).float()
    tensors = [x.float() for x in inputs(layer)]
    call = {"attn_mask": torch.randn(TARGETS, SOURCES), **outputs}
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = layer(*tensors, **call)
    assert found.dtype == torch.bfloat16
    expected = layer(*tensors, **call)[0]
    assert (found.float() - expected).norm() < 0.03 * expected.norm()  # at most 0.018 in 500 trials, 0.005 in the mean


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "tokens first"])
@pytest.mark.parametrize("count", [1, MEMBERS - 1, ROWS + 1])
def test_rows_that_do_not_divide_among_the_members_raise(count: int, batch_first: bool) -> None:
    layer = attention(batch_first=batch_first)
    with pytest.raises(InputError, match=f"{count} rows do not divide among {MEMBERS}"):
        layer(*inputs(layer, rows=count))


def test_invalid_inputs_and_masks_raise() -> None:
    layer = attention(batch_first=True)
    q, k, v = inputs(layer)
    for call, message in [
        ((q[0], k[0], v[0]), "rank-1 attention requires batched inputs with 3 axes, not 2, 2 and 2"),
        ((q, k[:BATCH], v), f"{ROWS} rows of queries, {BATCH} of keys and {ROWS} of values"),
        ((q, k[:BATCH], v[:BATCH]), f"{ROWS} rows of queries, {BATCH} of keys and {BATCH} of values"),
        ((q, k, v[:, 1:]), f"equally many keys and values, not {SOURCES} keys and {SOURCES - 1} values"),
    ]:
        with pytest.raises(InputError, match=message):
            layer(*call)
    for options, message in [
        ({"attn_mask": torch.zeros(SOURCES, TARGETS)}, r"\[4, 5\] or \[12, 4, 5\], and is \[5, 4\]"),
        ({"attn_mask": torch.zeros(HEADS * BATCH, TARGETS, SOURCES)}, r"and is \[4, 4, 5\]"),
        ({"key_padding_mask": torch.zeros(BATCH, SOURCES)}, r"must be \[6, 5\], and is \[2, 5\]"),
        ({"is_causal": True}, "is_causal requires attn_mask"),
    ]:
        with pytest.raises(InputError, match=message):
            layer(q, k, v, **options)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_raise() -> None:
    layer = attention(batch_first=True)
    mask = torch.ones(ROWS, TARGETS, dtype=torch.bool)
    nested = torch._nested_tensor_from_mask(torch.randn(ROWS, TARGETS, SIZE).double(), mask)
    with pytest.raises(InputError, match="use_nested_tensor"):
        layer(nested, nested, nested)


class FastPaths:
    """Counts the calls of the fast path of torch's encoder layers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        real = torch._transformer_encoder_layer_fwd

        def counting(*args: object) -> Tensor:
            self.taken += 1
            return real(*args)

        monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counting)


@pytest.fixture
def fast_paths(monkeypatch: pytest.MonkeyPatch) -> FastPaths:
    return FastPaths(monkeypatch)


def encoder_layer(**options: object) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(SIZE, HEADS, 7, batch_first=True, dtype=torch.float64, **options).eval()


def convert_encoder_layer(layer: nn.TransformerEncoderLayer, own_norms: bool, but: str = "") -> None:
    kinds = {"self_attn": Rank1MultiheadAttention, "linear1": Rank1Linear, "linear2": Rank1Linear}
    for name, kind in kinds.items():
        if name != but:
            convert(getattr(layer, name), kind, FactorInit())
    for norm in (layer.norm1, layer.norm2):
        if own_norms:
            norm.__class__, norm.ensemble_size = MemberLayerNorm, MEMBERS
            norm.weight, norm.bias = own_parameter(norm.weight, MEMBERS), own_parameter(norm.bias, MEMBERS)


def member_encoder(converted: nn.Module, plain: nn.Module, member: int) -> nn.Module:
    """Return a plain encoder with the parameters of one member."""
    tensors = {}
    for prefix, module in converted.named_modules():
        dot = f"{prefix}." if prefix else ""
        if isinstance(module, Rank1MultiheadAttention):
            tensors |= {dot + name: tensor for name, tensor in member_parameters(module, member).items()}
        elif isinstance(module, Rank1Linear):
            tensors[f"{dot}weight"] = member_weight(module.weight, module.r[member], module.s[member])
            tensors[f"{dot}bias"] = module.bias[member]
        elif isinstance(module, MemberLayerNorm):
            tensors |= {f"{dot}weight": module.weight[member], f"{dot}bias": module.bias[member]}
        else:
            tensors |= {dot + name: tensor for name, tensor in module.named_parameters(recurse=False)}
    plain = deepcopy(plain)
    plain.load_state_dict(tensors)
    return plain


@pytest.mark.parametrize("kinds", [(), ("attn", "bool"), ("padding", "bool"), ("attn", "padding", "bool")])
@pytest.mark.parametrize("own_norms", [False, True], ids=["shared norms", "own norms"])
@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
def test_an_encoder_layer_in_eval_mode_calls_the_attention(
    options: dict, own_norms: bool, kinds: tuple[str, ...], fast_paths: FastPaths
) -> None:
    plain = encoder_layer(**options)
    converted = deepcopy(plain)
    convert_encoder_layer(converted, own_norms)
    perturb(converted)
    x = torch.randn(ROWS, TARGETS, SIZE, dtype=torch.float64)
    call = {f"src_{name.removeprefix('attn_')}": mask for name, mask in masks(kinds, TARGETS).items()}
    with torch.no_grad():
        for found in (converted, deepcopy(converted), pickle.loads(pickle.dumps(converted))):
            y = found(x, **call)
            assert fast_paths.taken == 0
            for member, part in enumerate(x.chunk(MEMBERS)):
                own = dict(call)
                if "src_key_padding_mask" in own:
                    own["src_key_padding_mask"] = own["src_key_padding_mask"].chunk(MEMBERS)[member]
                close(y.chunk(MEMBERS)[member], member_encoder(converted, plain, member)(part, **own))
            # torch's own attention would have taken the fast path.
            assert fast_paths.taken == MEMBERS
            fast_paths.taken = 0


@pytest.mark.parametrize("but", ["", "self_attn"], ids=["all", "all but the attention"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_without_fast_paths_an_encoder_calls_its_layers(padded: bool, but: str, fast_paths: FastPaths) -> None:
    plain = nn.TransformerEncoder(encoder_layer(), 2).eval()
    converted = deepcopy(plain)
    for layer in converted.layers:
        convert_encoder_layer(layer, own_norms=True, but=but)
    perturb(converted)
    without_fast_paths(converted)
    x = torch.randn(ROWS, TARGETS, SIZE, dtype=torch.float64)
    hidden = torch.zeros(ROWS, TARGETS, dtype=torch.bool)
    if padded:
        hidden[::2, 2:] = True
    with torch.no_grad():
        found = deepcopy(converted)(x, src_key_padding_mask=hidden)
        assert fast_paths.taken == 0
        parts = zip(x.chunk(MEMBERS), hidden.chunk(MEMBERS), found.chunk(MEMBERS), strict=True)
        for member, (part, own_hidden, own_found) in enumerate(parts):
            expected = member_encoder(converted, plain, member)(part, src_key_padding_mask=own_hidden)
            close(own_found[~own_hidden], expected[~own_hidden])
    assert fast_paths.taken == 2 * MEMBERS
