"""How factors start, layer by layer."""

import pytest
import torch
from torch import Tensor, nn

from bayes_share.config import RunConfig
from bayes_share.errors import InputError
from bayes_share.layers.factors import FactorInit
from bayes_share.sharing import ensemble
from bayes_share.sharing.starts import read_starts


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


def kind(factors: Tensor) -> str:
    if bool((factors == 1).all()):
        return "ones"
    return "sign" if bool((factors.abs() == 1).all()) else "normal"


def kinds(init: dict[str, str | FactorInit]) -> list[str]:
    torch.manual_seed(0)
    net = ensemble(Net(), 4, init=init).network  # type: ignore[arg-type]
    return [kind(layer.r) for layer in (net.blocks[0], net.blocks[2], net.head)]


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ({"first": "random_sign", "*": "ones"}, ["sign", "ones", "ones"]),
        ({"*": "ones", "first": "random_sign"}, ["sign", "ones", "ones"]),
        ({"*": "ones", "blocks.*": "random_sign"}, ["sign", "sign", "ones"]),
        ({"blocks.*": "random_sign", "blocks.2": "normal", "head": "ones"}, ["sign", "normal", "ones"]),
        ({"blocks.2": "normal", "blocks.*": "random_sign", "head": "ones"}, ["sign", "sign", "ones"]),
        ({"*": FactorInit("normal", sd=0.0), "head": "random_sign"}, ["ones", "ones", "sign"]),
    ],
)
def test_the_last_rule_that_matches_counts_and_the_rest_is_the_rest(init: dict, expected: list[str]) -> None:
    assert kinds(init) == expected


def test_heads_of_the_members_own_start_as_their_rule_says() -> None:
    torch.manual_seed(0)
    init = {"first": "random_sign", "head": "random_sign", "*": "ones"}
    net = ensemble(Net(), 4, init=init, own=("head",))
    weights = net.network.head.weight
    assert weights.shape == (4, 3, 8)
    assert torch.equal(weights.abs(), weights[:1].abs().expand_as(weights))
    assert not torch.equal(weights[0], weights[1])
    shown = net.summary()
    assert "±1, with probability 0.5 of +1 (first: blocks.0)" in shown
    assert "1 (*)" in shown
    assert net(torch.randn(5, 6)).shape == (4, 5, 3)


def test_what_is_no_start_is_one_line(unchecked: None) -> None:
    for init, message in {
        ("blocks.7", "ones", "*", "ones"): "the pattern 'blocks.7' of init matches no layer that gets factors",
        ("first", "ones"): "init has no start for blocks.2, head: add one",
        ("first", "one", "*", "ones"): "unknown factor init 'one': did you mean 'ones'?",
    }.items():
        with pytest.raises(InputError, match=message):
            ensemble(Net(), 4, init=dict(zip(init[::2], init[1::2], strict=True)))  # type: ignore[arg-type]
    for text, message in {
        "first=random_sign,ones": "'ones' should be PATTERN=KIND",
        "first=ones,first=normal": "two starts for 'first'",
        "first=one": "unknown factor init 'one'",
        "random_signs": "unknown factor init 'random_signs': did you mean 'random_sign'?",
    }.items():
        with pytest.raises(InputError, match=message):
            read_starts(text)
        with pytest.raises(InputError, match=message):
            RunConfig(ensemble_size=4, init=text)


def test_a_config_keeps_starts_by_layer() -> None:
    config = RunConfig(ensemble_size=4, init="first=random_sign,*=ones", init_probability=0.25)
    assert "init: first=random_sign,*=ones" in config.to_yaml()
    starts = read_starts(config.init, config.init_sd, config.init_probability)
    assert starts == {"first": FactorInit("random_sign", 0.5, 0.25), "*": FactorInit("ones", 0.5, 0.25)}
