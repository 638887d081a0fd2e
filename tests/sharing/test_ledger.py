"""What a network stores, uses and computes, counted by hand."""

import re
from typing import Any

import pytest
import torch
from odd_nets import ReadsWeight, Two, vectors
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.sharing import Ledger, ensemble, ledger, share_layers

MEMBERS = 3
CONV, NORM, LINEAR, BIAS = 4 * 3 * 3 * 3, 2 * 4, 5 * 64, 5
FACTORS = (3 + 4) + (64 + 5)
# A product and a sum for each weight and place: 4 x 4 places of the convolution, one of the linear layer.
FLOPS = 2 * (CONV * 16 + LINEAR)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5)).double()


def images(count: int = 2) -> Tensor:
    return torch.zeros(count, 3, 6, 6, dtype=torch.float64)


def test_an_ensemble_that_shares_norms() -> None:
    stored = CONV + NORM + LINEAR + MEMBERS * (BIAS + FACTORS)
    assert ledger(ensemble(net(), MEMBERS)) == Ledger(
        members=MEMBERS,
        stored=stored,
        used=MEMBERS * (CONV + NORM + LINEAR + BIAS),
        base=CONV + NORM + LINEAR,
        member=MEMBERS * BIAS,
        factor=MEMBERS * FACTORS,
        weights=2,
        uses=2 * MEMBERS,
        buffers=4 + 4 + 1,
        bytes=8 * (stored + 9),
        flops=None,
        not_shared=(),
    )


def test_an_ensemble_whose_members_have_norms_of_their_own() -> None:
    found = ledger(ensemble(net().float(), MEMBERS, norm="member"))
    assert found.base == CONV + LINEAR
    assert found.member == MEMBERS * (NORM + BIAS)
    assert found.factor == MEMBERS * FACTORS
    assert found.used == MEMBERS * (CONV + NORM + LINEAR + BIAS)
    assert found.buffers == MEMBERS * 8 + 1
    assert found.bytes == 4 * (found.stored + MEMBERS * 8) + 8
    assert found.overhead == pytest.approx((NORM + BIAS + FACTORS) / (CONV + LINEAR))


@pytest.mark.parametrize(
    ("options", "base", "member", "factor", "seeds"),
    [
        ({"init": "normal", "factor_rank": 3}, CONV + NORM + LINEAR, BIAS, 3 * FACTORS, 0),
        (
            {"init": "normal", "factor_form": "additive", "factor_rank": 2},
            CONV + NORM + LINEAR,
            BIAS,
            2 * ((3 * 3 * 3 + 4) + (64 + 5)),  # r has a value for each input channel and kernel position
            0,
        ),
        ({"init": "fixed_sign"}, CONV + NORM + LINEAR + BIAS, 0, 0, 2),
        ({"init": "fixed_sign", "factor_rank": 2}, CONV + NORM + LINEAR + BIAS, 0, FACTORS, 2),
        ({"init": "random_sign", "own": ("head",)}, CONV + NORM, LINEAR + BIAS, 3 + 4, 0),
        ({"init": "random_sign", "own": ("*",)}, 0, CONV + NORM + LINEAR + BIAS, 0, 0),
    ],
    ids=["rank 3", "additive", "fixed signs", "fixed signs and a term", "own head", "all own"],
)
def test_ensembles_with_several_terms_fixed_signs_and_own_weights(
    options: dict[str, Any], base: int, member: int, factor: int, seeds: int
) -> None:
    """The counts of `member`, `factor` and `seeds` are those of a single member."""
    stored = base + MEMBERS * (member + factor)
    own_norms = options.get("own") == ("*",)
    buffers = 8 * (MEMBERS if own_norms else 1) + 1 + MEMBERS * seeds
    layers = {("head",): 1, ("*",): 0}.get(options.get("own", ()), 2)  # those that share their weight
    assert ledger(ensemble(net(), MEMBERS, **options), images()) == Ledger(
        members=MEMBERS,
        stored=stored,
        used=MEMBERS * (CONV + NORM + LINEAR + BIAS),
        base=base,
        member=MEMBERS * member,
        factor=MEMBERS * factor,
        weights=layers,
        uses=MEMBERS * layers,
        buffers=buffers,
        bytes=8 * (stored + buffers),
        flops=MEMBERS * FLOPS,
        not_shared=(),
    )


def test_a_network_alone() -> None:
    count = CONV + NORM + LINEAR + BIAS
    assert ledger(net(), images()) == Ledger(1, count, count, count, 0, 0, 0, 0, 9, 8 * (count + 9), FLOPS, ())
    assert ledger(net()).overhead == 0
    assert ledger(nn.ReLU()) == Ledger(1, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, ())
    assert ledger(nn.ReLU()).overhead == 0


def test_what_is_left_out_is_shared_by_all() -> None:
    found = ledger(ensemble(net(), MEMBERS, exclude=["3"]))
    assert (found.member, found.factor) == (0, MEMBERS * (3 + 4))
    assert found.base == CONV + NORM + LINEAR + BIAS


def test_tied_parameters_are_stored_once_and_used_as_often_as_they_differ() -> None:
    tied = nn.Sequential(nn.Linear(4, 4), nn.PReLU(), nn.Linear(4, 4), nn.PReLU())
    tied[2].weight, tied[2].bias, tied[3].weight = tied[0].weight, tied[0].bias, tied[1].weight
    found = ledger(ensemble(tied, MEMBERS))
    assert (found.base, found.member, found.factor) == (16 + 1, MEMBERS * 4, MEMBERS * 16)
    assert found.used == MEMBERS * (2 * 16 + 4 + 1)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("training", [True, False])
def test_flops_are_of_one_example_and_all_members(count: int, training: bool) -> None:
    assert ledger(net().train(training), images(count)).flops == FLOPS
    for way in ("auto", "activations", "weights"):
        members = ensemble(net(), MEMBERS, way=way).train(training)
        modes = [module.training for module in members.modules()]
        assert ledger(members, images(count)).flops == MEMBERS * FLOPS
        assert [module.training for module in members.modules()] == modes


def test_flops_of_a_loop() -> None:
    loop = ensemble(ReadsWeight().double(), MEMBERS, example=vectors(), way="activations")
    assert loop.strategy == "loop"
    assert ledger(loop, vectors()).flops == MEMBERS * 2 * (16 + 12)


def test_a_convolution_with_groups_and_strides() -> None:
    grouped = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2).double()
    x = torch.zeros(3, 4, 7, 7, dtype=torch.float64)
    flops = 2 * (6 * 2 * 9) * 16
    assert ledger(grouped, x).flops == flops
    assert ledger(ensemble(grouped, MEMBERS), x).flops == MEMBERS * flops


def test_an_ensemble_of_one_shares_nothing_and_says_so() -> None:
    found = ledger(ensemble(net(), 1))
    assert found.not_shared == ("network.0.weight", "network.3.weight")
    assert str(found).endswith("not shared (one use)  network.0.weight, network.3.weight")
    assert ledger(ensemble(nn.Linear(4, 4), 1)).not_shared == ("network.weight",)


def test_what_is_printed() -> None:
    lines = str(ledger(ensemble(net(), MEMBERS), images())).splitlines()
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["members", "3"],
        ["parameters stored", "679 (0.0 MiB with 9 values in buffers)"],
        ["parameters used", "1,323, 1.95 times the stored parameters"],
        ["shared by all members", "436"],
        ["own biases, norms and weights", "15; each further member adds 18.6% to what is shared"],
        ["base weights", "2, used 6 times"],
        ["rank-1 factors", "228; 38.0 for each use"],
        ["FLOPs per prediction", "12,288, all members together"],
    ]
    assert len({len(line) - len(re.split(r"\s{2,}", line)[1]) for line in lines}) == 1


def test_what_is_printed_of_one_network_says_nothing_of_members() -> None:
    shared = share_layers(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)))
    lines = str(ledger(shared, torch.zeros(1, 4))).splitlines()
    assert [re.split(r"\s{2,}", line) for line in lines] == [
        ["members", "1"],
        ["parameters stored", "40 (0.0 MiB with 0 values in buffers)"],
        ["parameters used", "40, 1.00 times the stored parameters"],
        ["base weights", "1, used 2 times"],
        ["rank-1 factors", "16; 8.0 for each use"],
        ["FLOPs per prediction", "64"],
    ]


def test_an_example_that_the_network_refuses() -> None:
    for refused in (Two().double(), ensemble(Two().double(), MEMBERS)):
        with pytest.raises(InputError, match=r"the network fails on the example of shape \[6, 3\]"):
            ledger(refused, vectors(6, 3))
