"""Sharing between layers, blocks and members, in any order; and under the algorithms, in checkpoints and priors."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from explicit import close, perturb
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import MAP
from bayes_share.layers import set_way
from bayes_share.models.model import Model
from bayes_share.priors.sites import sites_of
from bayes_share.sharing import (
    Ensemble,
    describe_sharing,
    ensemble,
    fold,
    ledger,
    parameter_kinds,
    share_groups,
    share_layers,
    sharing_error,
    take_member,
)

MEMBERS = 3


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    parts = [part for _ in range(3) for part in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), *parts, nn.Flatten(), nn.Linear(64, 5))
    return perturb(net.double()).eval()  # type: ignore[return-value]


def tied_embedding() -> nn.Module:
    net = nn.Module()
    net.tokens, net.out = nn.Embedding(8, 4), nn.Linear(4, 8)
    net.out.weight = net.tokens.weight
    return net


def images() -> Tensor:
    return torch.randn(6, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_activations(members: Ensemble) -> Tensor:
    """The outputs without any member that is folded."""
    set_way(members, "activations")
    outputs = members(images())
    set_way(members, "auto")
    return outputs


Change = Callable[[nn.Module], nn.Module]
CHANGES: dict[str, Change] = {
    "members": lambda net: ensemble(net, MEMBERS),
    "members, own norms": lambda net: ensemble(net, MEMBERS, norm="member"),
    "layers": share_layers,
    "layers, scalar": lambda net: share_layers(net, factors="scalar"),
    "layers, tied": lambda net: share_layers(net, factors="none"),
    "layers, one norm": lambda net: share_layers(net, norm="shared"),
    "templates": lambda net: share_layers(net, templates=2),
    "templates alone": lambda net: share_layers(net, factors="none", templates=2),
    "groups": lambda net: share_groups(net, 2, indivisible="skip"),
    "groups of outputs": lambda net: share_groups(net, 2, along="out", indivisible="skip"),
}
PAIRS = [
    (one, other)
    for number, one in enumerate(CHANGES)
    for other in list(CHANGES)[number + 1 :]
    if one.split(",")[0].split()[0] != other.split(",")[0].split()[0]
    and {one.split()[0].strip(","), other.split()[0]} != {"layers", "templates"}
]


def forms(net: nn.Module) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """The shapes of all parameters, and which names are one."""
    names: dict[Any, list[str]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return {name: tuple(p.shape) for name, p in net.named_parameters()}, sorted(tuple(same) for same in names.values())


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_ways_of_sharing_are_the_same_in_either_order(one: str, other: str) -> None:
    net = convolutional()
    first, second = CHANGES[other](CHANGES[one](net)), CHANGES[one](CHANGES[other](net))
    assert forms(first) == forms(second)
    assert type(first) is type(second)
    assert ledger(first) == ledger(second)
    # One has every function that the other has: with its numbers it computes the same.
    perturb(first)
    second.load_state_dict(first.state_dict())
    close(first(images()), second(images()), 1e-12)
    assert describe_sharing(first) == describe_sharing(second)


@pytest.mark.parametrize("names", [("layers", "groups", "members"), ("templates", "groups", "members, own norms")])
def test_three_ways_fold_and_run_in_every_way(names: tuple[str, ...]) -> None:
    net = convolutional()
    made: Any = net
    for name in (names[2], names[0], names[1]):
        made = CHANGES[name](made)
    assert isinstance(made, Ensemble)
    perturb(made)
    expected = by_activations(made)
    assert made.strategy == "tile"
    close(made.loop([images()] * MEMBERS), expected, 1e-12)
    with torch.no_grad():
        close(made(images()), expected, 1e-12)  # by members that are folded and kept
    fed = made.train()(images(), feed="split")
    assert fed.shape == (MEMBERS, 2, 5)
    made.eval()
    expected = by_activations(made)
    for member in range(MEMBERS):
        plain = fold(made, member)
        close(plain(images()), expected[member], 1e-12)
        convolutional().load_state_dict(plain.state_dict(), strict=True)
        close(by_activations(take_member(made, member))[0], expected[member], 1e-12)


def test_members_multiply_into_factors_that_are_there() -> None:
    net = perturb(share_layers(convolutional()))
    copies = ensemble(net, MEMBERS, init="ones")
    close(copies(images()), net(images()).expand(MEMBERS, -1, -1), 1e-12)
    others = ensemble(net, MEMBERS, init="normal")
    assert others.network[1].weight is others.network[4].weight
    assert (others(images())[0] - others(images())[1]).abs().max() > 1e-3


def test_what_the_members_of_an_ensemble_leave_out_they_share() -> None:
    net = perturb(ensemble(share_layers(convolutional()), MEMBERS, exclude=["4"]))
    assert net.network[4].r.shape == (1, 4)
    assert "excluded by include or exclude" in net.summary()
    expected = by_activations(net)
    for member in range(MEMBERS):
        close(fold(net, member)(images()), expected[member], 1e-12)
        close(by_activations(take_member(net, member))[0], expected[member], 1e-12)


def test_an_ensemble_whose_weights_are_shared_exactly_is_found() -> None:
    made = perturb(CHANGES["layers"](ensemble(convolutional(), MEMBERS)))
    apart = ensemble(convolutional(), MEMBERS)
    with torch.no_grad():
        for number in (1, 4, 7):
            apart.network[number].weight.copy_(made.network[1].weight)
            for name in ("r", "s", "bias"):
                getattr(apart.network[number], name).copy_(getattr(made.network[number], name))
    assert max(sharing_error(share_layers(apart, fit_to_weights=True), apart).values()) < 1e-6


@pytest.mark.parametrize("along", ["both", "out", "in"])
def test_blocks_that_are_shared_exactly_are_found(along: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 6)).double()
    exact = fold(share_groups(net, 2, along, init="normal"))
    found = share_groups(exact, 2, along, fit_to_weights=True)
    parts = (1 if along == "in" else 2) * (1 if along == "out" else 2)
    assert found[0].weight.numel() == exact[0].weight.numel() // parts
    assert max(sharing_error(found, exact).values()) < 1e-6


def test_blocks_begin_as_the_first_one_and_differ() -> None:
    net = nn.Linear(8, 8).double()
    cut = share_groups(nn.Sequential(net), 2)
    close(cut[0].weight, net.weight[:4, :4])
    assert bool((fold(cut)[0].weight.abs() == net.weight[:4, :4].abs().repeat(2, 2)).all())
    assert not torch.equal(fold(cut)[0].weight[:4], fold(cut)[0].weight[4:])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "indivisible": (
        lambda: share_groups(convolutional(), 2),
        '^0, a Conv2d 4x3x3x3, has 3 input channels, which is not divisible by 2: .*indivisible="skip"',
    ),
    "grouped": (lambda: share_groups(nn.Conv2d(4, 4, 3, groups=2), 2), "already has 2 groups of channels"),
    "one": (lambda: share_groups(convolutional(), 1), "groups must be an integer of at least 2, and is 1"),
    "nothing": (
        lambda: share_groups(nn.Linear(3, 3), 2, indivisible="skip"),
        "no layer can be cut into 2 groups: there are Linear 3x3",
    ),
    "again": (
        lambda: share_groups(CHANGES["groups"](convolutional()), 2, include=["1"]),
        "1 is already cut into groups",
    ),
    "one of two": (
        lambda: share_groups(share_layers(convolutional()), 2, include=["1", "4"]),
        "1 and 7 share one weight: cut both or neither",
    ),
    "one that cannot be cut": (
        lambda: share_groups(tied_embedding(), 2),
        "out and tokens share one weight, and tokens, of type Embedding, cannot be cut: exclude 'out' too",
    ),
    "groups that are no number": (
        lambda: share_groups(convolutional(), "2"),
        "an integer of at least 2, and is '2'",
    ),
    "a class": (
        lambda: share_groups(nn.Linear, 2),
        "an instance of torch.nn.Module, not the class Linear",
    ),
    "no match": (
        lambda: share_groups(convolutional(), 2, include=["head"]),
        "pattern 'head' matches no layer that could be cut",
    ),
    "axis": (lambda: share_groups(convolutional(), 2, along="up"), "unknown axis of groups 'up'"),  # type: ignore[arg-type]
    "word": (lambda: share_groups(convolutional(), 2, indivisible="no"), "unknown indivisible 'no'"),  # type: ignore[arg-type]
    "members again": (
        lambda: ensemble(CHANGES["layers"](ensemble(convolutional(), 2))),
        "this network is already an ensemble",
    ),
    "a network without members": (lambda: fold(share_layers(convolutional()), 1), "has no members"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_clear_line(what: str) -> None:
    refused, message = REFUSED[what]
    with pytest.raises(InputError, match=message) as caught:
        refused()
    assert "\n" not in str(caught.value)


def test_kinds_and_sites() -> None:
    net = share_groups(share_layers(convolutional(), templates=2), 2, indivisible="skip")
    kinds = parameter_kinds(net)
    assert kinds["1.weight"] == "base"
    assert "4.weight" not in kinds
    assert kinds["4.r"] == kinds["4.s"] == "factor"
    assert kinds["4.mix"] == kinds["4.bias"] == "member"
    sites = dict(sites_of(net, {}))
    assert len(sites) == len(kinds)
    assert (sites["1.weight"].role, sites["1.weight"].fan_in) == ("weight", 4 * 9)
    assert (sites["7.mix"].role, sites["7.mix"].fan_in) == ("mix", 2)
    latents = {latent.site.name: latent.prior for latent in Model(net.float()).latents()}
    assert float(latents["4.mix"].stddev.flatten()[0]) == pytest.approx(0.5**0.5)
    assert float(latents["1.weight"].stddev.flatten()[0]) == pytest.approx(4 / 6)


def test_a_shared_weight_is_saved_once() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Linear(200, 200) for _ in range(5)])

    def size(network: nn.Module) -> int:
        state = MAP().init(lambda: Model(network), 10, 10)
        file = io.BytesIO()
        torch.save(state.state_dict(), file)
        return file.tell()

    assert size(share_layers(net)) < 0.3 * size(net)


@pytest.mark.parametrize(
    "algorithm",
    [MAP(optimizer="sgd", momentum=0.0, learning_rate=1.0, weight_decay=0.1), MAP(optimizer="adamw", weight_decay=0.1)],
)
def test_a_tied_weight_decays_once(algorithm: MAP) -> None:
    torch.manual_seed(0)
    state = algorithm.init(lambda: Model(share_layers(nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)]))), 10, 10)
    groups = state.stepper.optimizer.param_groups
    weight = state.model.network[0].weight
    assert sum(any(one is weight for one in group["params"]) for group in groups) == 1
    assert len([p for group in groups for p in group["params"]]) == len(list(state.model.parameters()))


@pytest.mark.parametrize("factors", ["rank1", "scalar"])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_blocks_multiply_into_factors_that_are_there(kind: type, factors: Any) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(*[kind(4, 4, 3, padding=1) for _ in range(2)]).double()
    shared = perturb(share_layers(layers, factors=factors, init="normal"))
    with torch.no_grad():  # all blocks of the base are one already
        shared[0].weight.copy_(shared[0].weight[:2, :2].repeat(2, 2, 1, 1))
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    close(share_groups(shared, 2, init="ones")(x), shared(x), 1e-12)


@pytest.mark.parametrize("init", ["normal", "fixed_sign", "mask"])
def test_members_of_a_network_that_shares_layers_are_those_of_the_folded_network(init: Any) -> None:
    """Factors drawn from the same seed multiply the factors of the layers, as they multiply the folded weights."""
    torch.manual_seed(0)
    shared = perturb(share_layers(nn.Sequential(*[nn.Linear(6, 6) for _ in range(2)]).double()))
    x = torch.randn(5, 6, dtype=torch.float64)
    found = []
    for net in (shared, fold(shared)):
        torch.manual_seed(1)
        found.append(ensemble(net, MEMBERS, init, factor_rank=3 if init == "normal" else 1).tile(x.repeat(MEMBERS, 1)))
    close(found[0], found[1], 1e-12)
