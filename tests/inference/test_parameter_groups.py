"""`parameter_groups` for custom training loops: factors have their own learning rate and no decay."""

from typing import Any

import pytest
import torch
from torch import nn

from bayes_share import ensemble, parameter_groups
from bayes_share.errors import InputError
from bayes_share.models.model import Model

MEMBERS = 4


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2))
    net[0].weight.requires_grad_(False)
    return ensemble(net, MEMBERS, "random_sign", own=("norms",), factor_rank=2)


def by_kind(groups: list[dict[str, Any]]) -> dict[tuple[str, bool], dict[str, Any]]:
    return {(group["kind"], group["is_further"]): group for group in groups}


@pytest.mark.parametrize("wrapped", [False, True])
def test_each_kind_of_parameter_has_its_rate_and_decay(wrapped: bool) -> None:
    net = Model(network()) if wrapped else network()
    groups = by_kind(parameter_groups(net, 0.1, weight_decay=0.2, factor_rate=0.3))
    assert {key: (group["lr"], group["weight_decay"]) for key, group in groups.items()} == {
        ("base", False): (0.1, 0.2),
        ("member", False): (0.1, 0.2),
        ("factor", False): (pytest.approx(0.03), 0.0),
        ("factor", True): (pytest.approx(0.03), 0.0),
    }
    added = by_kind(parameter_groups(net, 0.1, weight_decay=0.2, is_decoupled=False))
    assert added["member", False]["weight_decay"] == pytest.approx(0.2 / MEMBERS)
    assert added["base", False]["weight_decay"] == 0.2
    found = [parameter for group in groups.values() for parameter in group["params"]]
    assert sorted(map(id, found)) == sorted(id(own) for own in net.parameters() if own.requires_grad)


def test_weight_decay_does_not_change_factors() -> None:
    net = network()
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    torch.optim.AdamW(parameter_groups(net, 0.1, weight_decay=0.5)).step()
    for name, parameter in net.named_parameters():
        last = name.rpartition(".")[2]
        kept = last in ("r", "s", "more_r", "more_s") or not parameter.requires_grad
        torch.testing.assert_close(parameter.detach(), before[name] * (1.0 if kept else 0.95))


def test_a_plain_network_has_one_group() -> None:
    (group,) = parameter_groups(nn.Linear(3, 2), 0.1, weight_decay=0.2)
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.1, 0.2, 2)


@pytest.mark.parametrize("option", ["learning_rate", "weight_decay", "factor_rate"])
def test_a_negative_rate_or_decay_is_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} must be finite and not negative, and is -1"):
        parameter_groups(nn.Linear(3, 2), **{"learning_rate": 0.1, option: -1.0})
