"""Starts of factors by layer: which rule counts for which layer, and what is said where rules do not fit."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close
from torch import nn

from bayes_share.errors import InputError
from bayes_share.layers import FactorInit
from bayes_share.layers.factored import Factored
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import to_yaml
from bayes_share.sharing import Ensemble, ensemble, fold, share_groups, share_layers
from bayes_share.sharing.starts import read_starts

MEMBERS = 16


class Net(nn.Module):
    """Layers of every kind; they are defined in another order than the one in which they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 8)
        self.mixer = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.blocks = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Conv1d(3, 3, 1))
        self.last = nn.Linear(8, 2)
        self.same_last = self.last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.tokens(x))
        x = self.blocks(x + self.mixer(x, x, x, need_weights=False)[0])
        return self.same_last(x.mean(1))


def starts(members: Ensemble) -> dict[str, str]:
    """How the factors of each layer have started, seen from their numbers."""
    found = {}
    for name, layer in members.network.named_modules():
        if not isinstance(layer, Factored) or layer.owns_weights:
            continue
        given = (layer.factor(one) for one in ("r", "s", "q_r", "q_s", "v_s"))
        values = torch.cat([one.detach().flatten() for one in given if one is not None])
        if bool((values == 1).all()):
            found[name] = "ones"
        elif bool((values.abs() == 1).all()):
            found[name] = "fixed_sign" if layer.r is None and hasattr(layer, "sign_seeds") else "random_sign"
        else:
            found[name] = f"sd {values.std().item():.1f}"
    return found


ONES = dict.fromkeys(("tokens", "mixer", "mixer.out_proj", "blocks.0", "blocks.2", "last"), "ones")
RULES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "the first": ({"first": "random_sign", "*": "ones"}, {"tokens": "random_sign"}),
    "the rest stands anywhere": ({"*": "ones", "first": "random_sign"}, {"tokens": "random_sign"}),
    "the head": ({"head": "random_sign", "*": "ones"}, {"last": "random_sign"}),
    "another name of it": ({"same_last": "random_sign", "*": "ones"}, {"last": "random_sign"}),
    "what a layer is in": ({"*": "ones", "blocks": "normal"}, {"blocks.0": "sd 0.5", "blocks.2": "sd 0.5"}),
    "the last rule that matches": (
        {"blocks.0": "random_sign", "blocks": "normal", "*.2": "random_sign", "*": "ones"},
        {"blocks.0": "sd 0.5", "blocks.2": "random_sign"},
    ),
    "attention": (
        {"mixer": FactorInit("normal", sd=0.1), "*": "ones"},
        {"mixer": "sd 0.1", "mixer.out_proj": "sd 0.1"},
    ),
    "a word for each": (
        {"first": "random_sign", "*": "ones", "head": "random_sign"},
        {"tokens": "random_sign", "last": "random_sign"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("init", "expected"), RULES.values(), ids=RULES)
def test_each_layer_starts_as_its_rule_says(init: dict[str, Any], expected: dict[str, str]) -> None:
    assert starts(ensemble(Net(), MEMBERS, init)) == ONES | expected


def test_the_first_is_the_first_that_is_converted_and_words_give_way_to_names() -> None:
    net = Net()
    rules = {"first": "random_sign", "*": "ones"}
    assert starts(ensemble(net, MEMBERS, rules, exclude=["tokens", "mixer"]))["blocks.0"] == "random_sign"
    net.first = nn.Linear(8, 8)
    found = starts(ensemble(net, MEMBERS, rules))
    assert found["tokens"] == "ones"
    assert found["first"] == "random_sign"
    with pytest.raises(InputError, match="the pattern 'first' of init matches no layer with factors; there are"):
        ensemble(net, MEMBERS, rules, exclude=["first"])
    assert starts(ensemble(nn.Linear(3, 2), MEMBERS, rules)) == {"": "random_sign"}


def test_rules_go_with_terms_signs_and_own_weights() -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).double()

    rules = {"0": "fixed_sign", "head": "random_sign", "*": "ones"}
    members = ensemble(net(), 3, rules, factor_rank=2, own=["head"])
    first, second, last = (members.network[place] for place in (0, 2, 4))
    assert first.r is None
    assert first.bias.shape == (1, 6)  # signs alone, so that biases are shared
    assert second.bias.shape == (3, 6)
    assert first.more_r.shape == (3, 1, 5)
    assert first.more_s.abs().max().item() > 0  # as a start from scratch has it
    assert second.more_s.abs().max().item() == 0  # as copies have it
    close(last.weight.abs(), net()[4].weight.abs().expand(3, -1, -1))
    assert not torch.equal(last.weight[0], last.weight[1])
    x = torch.randn(4, 5, dtype=torch.float64)
    for member, of_member in enumerate(members(x)):
        close(of_member, fold(members, member)(x))
    for kept in (members.keep([2]), members):
        close(kept(x)[-1], fold(members, 2)(x))
    added = ensemble(net(), 3, {"first": "normal", "*": "ones"}, factor_form="additive")
    assert added.network[0].add_s.abs().max().item() > 0
    assert added.network[2].add_s.abs().max().item() == 0
    with pytest.raises(InputError, match=r"additive factors require .* not 'random_sign'"):
        ensemble(net(), 3, {"first": "random_sign", "*": "ones"}, factor_form="additive")


def test_a_rule_may_be_for_one_factor() -> None:
    torch.manual_seed(0)
    rules = {"blocks.0.r": "standard_normal", "mixer.s": "random_sign", "blocks.0.s": "normal", "*": "ones"}
    network = ensemble(Net(), 2000, rules).network
    r, s, of_block = network.blocks[0].r.detach(), network.mixer.k_s.detach(), network.blocks[0].s.detach()
    error = 1 / r.numel() ** 0.5
    assert abs(r.mean().item()) < 4 * error
    assert abs(r.var().item() - 1) < 4 * 2**0.5 * error
    assert s.unique().tolist() == [-1, 1]
    assert abs(of_block.mean().item() - 1) < 4 * 0.5 / of_block.numel() ** 0.5
    others = (network.tokens.s, network.mixer.k_r, network.mixer.out_proj.r, network.blocks[2].r, network.last.s)
    assert all(bool((other == 1).all()) for other in others)
    close(network.mixer.out_proj.s.abs(), torch.ones(2000, 8))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "convolution": lambda: nn.Conv2d(2, 4, 3, groups=2),
    "embedding": lambda: nn.Embedding(5, 3, padding_idx=1),
    "attention": lambda: nn.MultiheadAttention(4, 2, batch_first=True),
}


@pytest.mark.parametrize("made", LAYERS.values(), ids=LAYERS)
def test_fresh_weights_are_those_of_layers_made_anew(made: Callable[[], nn.Module]) -> None:
    """The same numbers as from the constructor, after the same draws."""
    net = nn.Sequential(made(), nn.Linear(3, 2))
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(7)
    members = ensemble(net, 3, {"0": "fresh", "*": "ones"}, own=("0",))
    torch.manual_seed(7)
    for member in range(3):
        expected = dict(made().named_parameters())
        found = dict(fold(members, member)[0].named_parameters())
        assert found.keys() == expected.keys()
        for name, parameter in found.items():
            assert torch.equal(parameter, expected[name])
            assert not parameter.requires_grad
    assert "initialised independently for each member (0)" in members.summary()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"last": "fresh", "*": "ones"}, 'init "fresh" requires layers in own, and last is not: add it to own'),
        ({"last.r": "fresh", "*": "ones"}, "init 'fresh' applies to a whole layer"),
        ({"last.r": "fixed_sign", "*": "ones"}, "init 'fixed_sign' applies to a whole layer"),
        ({"lst.r": "ones", "*": "ones"}, "the pattern 'lst' of init matches no layer with factors; there are"),
        ({"*.r": "ones"}, 'init does not cover tokens, mixer'),
    ],
)  # fmt: skip
def test_starts_of_one_factor_or_of_weights_that_do_not_fit_are_one_line(init: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ensemble(Net(), MEMBERS, init)


def test_weights_that_layers_share_are_not_drawn_anew() -> None:
    shared = share_layers(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]))
    with pytest.raises(InputError, match='init "fresh" requires plain layers, and 0 shares its weight within'):
        ensemble(shared, 2, {"0": "fresh", "*": "ones"}, own=("0",))
    for convert in (share_layers, lambda net, init: share_groups(net, 2, init=init)):
        with pytest.raises(InputError, match=r'init "fresh" initialises a member.s own weights'):
            convert(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]), init=FactorInit("fresh"))


def test_a_config_keeps_starts_by_layer() -> None:
    config = RunConfig(ensemble_size=4, init="first=random_sign,*=ones", init_probability=0.25)
    assert "init: first=random_sign,*=ones" in to_yaml(config)
    starts = read_starts(config.init, config.init_sd, config.init_probability)
    assert starts == {"first": FactorInit("random_sign", 0.5, 0.25), "*": FactorInit("ones", 0.5, 0.25)}
    with pytest.raises(InputError, match="unknown factor init 'one'"):
        RunConfig(ensemble_size=4, init="first=one")


def test_the_summary_says_which_layers_start_how() -> None:
    net = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 2))
    lines = ensemble(net, 2, {"first": "random_sign", "*": "ones"}).summary().splitlines()
    assert lines[2] == "factors initialised by 1 (*); ±1, with probability 0.5 of +1 (first: 0)"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"block": "ones", "*": "ones"}, "the pattern 'block' of init matches no layer with factors; there are t"),
        ({"norm": "ones", "*": "ones"}, "the pattern 'norm' of init matches no layer with factors; there are"),
        ({"first": "ones", "blocks": "ones"}, 'init does not cover mixer, last: add "*" for all other layers'),
        ({}, 'init does not cover tokens, mixer, blocks.0, blocks.2 and 1 more: add "*" for all other layers'),
        ({"first": "signs", "*": "ones"}, "unknown factor init 'signs'"),
        ({"first": None, "*": "ones"}, "unknown factor init None"),
        ({"first": ["ones"], "*": "ones"}, "unknown factor init ['ones']"),
        ({0: "ones", "*": "ones"}, 'the patterns of init must be names of modules, such as "0", not 0'),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_are_one_line(init: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        ensemble(Net(), MEMBERS, init)
    assert "\n" not in str(caught.value)


def test_a_network_with_nothing_to_share_says_so() -> None:
    with pytest.raises(InputError, match="no layer of this Bilinear can be shared: it has parameters in"):
        ensemble(nn.Bilinear(2, 2, 2), 2, {"first": "random_sign", "*": "ones"})


def test_rules_as_text() -> None:
    assert read_starts("keep") == "keep"
    assert read_starts("first=keep,*=ones") == {"first": "keep", "*": FactorInit("ones")}
    assert read_starts("normal", 0.1, 0.2) == FactorInit("normal", 0.1, 0.2)
    found = read_starts(" first = random_sign, *=ones ,blocks.[0-3].*=normal", 0.1, 0.2)
    assert found == {
        "first": FactorInit("random_sign", 0.1, 0.2),
        "*": FactorInit("ones", 0.1, 0.2),
        "blocks.[0-3].*": FactorInit("normal", 0.1, 0.2),
    }
    assert list(found)[-1].startswith("blocks")  # the order counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one", "unknown factor init 'one': did you mean 'ones'?"),
        ("", "unknown factor init ''"),
        ("first=one,*=ones", "unknown factor init 'one': did you mean 'ones'?"),
        (
            "first=random_sign,ones",
            "init 'first=random_sign,ones': 'ones' should be PATTERN=KIND, such as first=random",
        ),
        ("first=ones,=normal", "'=normal' should be PATTERN=KIND"),
        ("first=ones,", "'' should be PATTERN=KIND"),
        ("*=ones,*=normal", "init '*=ones,*=normal' has two entries for '*'"),
    ],
)
def test_text_that_is_none_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_starts(text)
