"""Which layers are converted: names, prefixes and wildcards in `include` and `exclude`."""

import re
from typing import Any

import pytest
import torch
from explicit import close, perturb
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import MemberBatchNorm, Rank1Linear, Rank1MultiheadAttention
from bayes_share.layers.factored import Factored
from bayes_share.sharing import ensemble, fold, parameter_kinds

MEMBERS = 3


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.BatchNorm1d(3)
        self.mlp = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return x + self.attn(x, x, x, need_weights=False)[0] + self.mlp(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList([Block() for _ in range(2)])
        self.head = nn.Linear(4, 5)
        self.same_head = self.head

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.same_head(x.mean(1))


def net() -> nn.Module:
    torch.manual_seed(0)
    return perturb(Net().double()).eval()


def x() -> Tensor:
    return torch.randn(4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


ATTENTION = {f"blocks.{i}.attn{part}" for i in range(2) for part in ("", ".out_proj")}
MLP = {f"blocks.{i}.mlp.{j}" for i in range(2) for j in (0, 2)}
EVERYTHING = {"stem", "head"} | ATTENTION | MLP

PATTERNS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "everything": ({}, EVERYTHING),
    "a name": ({"include": ["stem"]}, {"stem"}),
    "a prefix": ({"include": ["blocks.1"]}, {name for name in EVERYTHING if name.startswith("blocks.1")}),
    "a prefix is of whole names": ({"include": ["blocks.1", "head"], "exclude": ["blocks.1.mlp"]}, {"head"} | {
        name for name in ATTENTION if name.startswith("blocks.1")
    }),
    "a wildcard": ({"include": ["*.attn"]}, ATTENTION),
    "a wildcard inside": ({"include": ["blocks.*.mlp.*"]}, MLP),
    "a letter": ({"include": ["blocks.?.mlp.[0-1]"]}, {"blocks.0.mlp.0", "blocks.1.mlp.0"}),
    "exclude a name": ({"exclude": ["stem"]}, EVERYTHING - {"stem"}),
    "exclude several": ({"exclude": ["*.mlp.*", "head"]}, {"stem"} | ATTENTION),
    "a wildcard for what they are in": ({"include": ["*.mlp"]}, MLP),
    "both": ({"include": ["blocks"], "exclude": ["*.attn"]}, MLP),
    "another name of a tied module": ({"include": ["same_head"]}, {"head"}),
    "exclude another name": ({"exclude": ["same_head"]}, EVERYTHING - {"head"}),
    "a tuple": ({"include": ("stem",)}, {"stem"}),
}  # fmt: skip


@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize(("options", "expected"), PATTERNS.values(), ids=PATTERNS)
def test_what_patterns_choose(options: dict[str, Any], expected: set[str], norm: Any) -> None:
    plain = net()
    members = perturb(ensemble(plain, MEMBERS, norm=norm, example=x(), **options), seed=1)
    converted = {name for name, module in members.network.named_modules() if isinstance(module, Factored)}
    assert converted == expected
    for name, module in members.network.named_modules():
        if name not in expected and not isinstance(module, MemberBatchNorm):
            assert type(module) is type(plain.get_submodule(name)), name
    kinds = parameter_kinds(members.network)
    for name in EVERYTHING - expected:
        assert kinds[f"{name}.{'in_proj_weight' if name.endswith('attn') else 'weight'}"] == "base"
        assert f"{name}.r" not in kinds
        if not name.endswith("out_proj"):  # a part of the attention, which is listed
            assert "excluded by include or exclude" in members.shared[name]
    outputs = members(x())
    assert members.strategy == "tile"
    for member in range(MEMBERS):
        close(outputs[member], fold(members, member)(x()))
    close(ensemble(plain, MEMBERS, "ones", norm=norm, **options)(x()), plain(x()).expand(MEMBERS, -1, -1))


def test_norms_follow_the_patterns() -> None:
    members = ensemble(net(), MEMBERS, norm="member", exclude=["blocks.0.norm"])
    assert type(members.network.blocks[0].norm) is nn.BatchNorm1d
    assert type(members.network.blocks[1].norm) is MemberBatchNorm
    only = ensemble(net(), MEMBERS, norm="member", include=["stem", "blocks.1.norm"])
    assert type(only.network.blocks[0].norm) is nn.BatchNorm1d
    assert type(only.network.blocks[1].norm) is MemberBatchNorm
    assert type(only.network.head) is nn.Linear
    shared = ensemble(net(), MEMBERS, include=["stem", "blocks.1.norm"])
    assert type(shared.network.blocks[1].norm) is nn.BatchNorm1d


@pytest.mark.parametrize("option", ["include", "exclude"])
@pytest.mark.parametrize("pattern", ["stems", "block", "blocks.2", "*.conv", "", "blocks.0.mlp.1", "Stem"])
def test_a_pattern_that_matches_nothing_names_what_there_is(option: str, pattern: str) -> None:
    there = "stem, blocks.0.attn, blocks.0.norm, blocks.0.mlp.0, blocks.0.mlp.2, blocks.1.attn, blocks.1.norm, "
    message = f"the pattern {pattern!r} matches no layer that could be converted; there are {there}blocks.1.mlp.0, …"
    with pytest.raises(InputError, match=re.escape(message) + "$"):
        ensemble(net(), MEMBERS, **{option: ["stem", pattern]})


def test_when_everything_is_left_out_there_is_nothing_to_share() -> None:
    with pytest.raises(InputError, match="no layer of this Net can be shared: it has parameters in"):
        ensemble(net(), MEMBERS, exclude=["*"])
    with pytest.raises(InputError, match="no layer of this Net can be shared: it has parameters in"):
        ensemble(net(), MEMBERS, include=["*.norm"])


def test_the_summary_counts_what_was_converted_and_gathers_what_was_not() -> None:
    members = ensemble(net(), MEMBERS, exclude=["*.mlp"], example=x())
    lines = members.summary().splitlines()
    assert lines[0].startswith("3 members; strategy 'tile': ")
    assert lines[1:] == [
        "own factors: 4 Rank1Linear, 2 Rank1MultiheadAttention",
        'factors initialised by N(1, 0.02²) ("keep"), for a trained network: the members preserve what it has learned',
        "shared (norms, not listed in own): blocks.0.norm, blocks.1.norm",
        "shared (excluded by include or exclude): blocks.0.mlp.0, blocks.0.mlp.2, blocks.1.mlp.0, blocks.1.mlp.2",
    ]
    many = ensemble(nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)]), include=["3"])
    assert many.summary().endswith("shared (excluded by include or exclude): 0, 1, 2, 4 and 4 more")
    assert type(many.network[3]) is Rank1Linear
    assert type(members.network.blocks[0].attn) is Rank1MultiheadAttention


def test_a_namesake_of_a_known_layer_is_told_apart() -> None:
    namesake = type("Linear", (nn.Linear,), {"__module__": "elsewhere"})
    members = ensemble(nn.Sequential(namesake(4, 4), nn.Linear(4, 4)))
    assert members.shared == {"0": "layers of type elsewhere.Linear are not supported"}


class WithToken(nn.Module):
    """A class token beside layers, and a layer of an unsupported type."""

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(3))
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.PReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.inner(x + self.cls)
        return outputs


def test_the_summary_names_shared_parameters_outside_of_layers() -> None:
    members = ensemble(nn.Sequential(WithToken(), nn.Linear(3, 2)), MEMBERS)
    assert "strategy 'auto': the first batch decides between 'tile' and 'loop'" in members.summary()
    assert members.summary().splitlines()[-2:] == [
        "shared (parameters outside of layers): 0.cls",
        "shared (layers of type PReLU are not supported): 0.inner.1",
    ]


@pytest.mark.parametrize("bias", [True, False])
def test_the_summary_says_why_layers_with_computed_weights_stay_shared(bias: bool) -> None:
    net = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3, bias)), nn.MultiheadAttention(4, 2), nn.Linear(4, 2)
    )
    lines = ensemble(net, MEMBERS, exclude=("1",)).summary().splitlines()
    assert lines[-2:] == [
        "shared (layers of type ParametrizedLinear are not supported): 0",
        "shared (excluded by include or exclude): 1",
    ]


def test_the_summary_names_layers_whose_factor_s_an_own_batch_norm_cancels() -> None:
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    line, x = "factor s not trained: 0", torch.zeros(2, 3)
    assert line in ensemble(plain, MEMBERS, own=("norms",), example=x).summary().splitlines()
    assert line not in ensemble(plain, MEMBERS, example=x).summary().splitlines()
    assert line not in ensemble(plain, MEMBERS, "fixed_sign").summary().splitlines()


def test_weights_that_a_hook_computes_stay_shared() -> None:
    plain = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 4)).double().eval()
    members = ensemble(plain, MEMBERS, "ones", example=torch.ones(2, 4, dtype=torch.float64))
    assert "shared (weights computed by a hook): 0" in members.summary()
    with torch.no_grad():
        close(members(x()), plain(x()).expand(MEMBERS, -1, -1, -1))
