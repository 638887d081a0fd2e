"""How an ensemble computes: found out by trying, right for any network, and without a trace of the trial."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from explicit import close, member_weight, perturb
from nets import NETWORKS, images, network
from odd_nets import ODD, SIZE, Odd, Positions, ReadsWeight, ReadsWeightBeforeSmallScale, Two, odd, vectors
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from bayes_share.errors import InputError
from bayes_share.layers import FactorInit, set_way
from bayes_share.sharing import Ensemble, ensemble, fold, members_equal

MEMBERS = 3
ALL = pytest.mark.parametrize("name", ODD)


def close_trees(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    leaves, form = tree_flatten(found)
    others, other_form = tree_flatten(expected)
    assert form == other_form
    for leaf, other in zip(leaves, others, strict=True):
        if isinstance(leaf, Tensor):
            close(leaf, other, tolerance)
        else:
            assert leaf == other


def stacked(outputs: list[Any]) -> Any:
    def of_members(*leaves: Any) -> Any:
        if not isinstance(leaves[0], Tensor):
            return leaves[0]
        is_loss = leaves[0].ndim == 0 and leaves[0].is_floating_point()
        return torch.stack(leaves).mean(0) if is_loss else torch.stack(leaves)

    return tree_map(of_members, *outputs)


def folded(members: Ensemble, x: Any) -> Any:
    return stacked([fold(members, member)(x) for member in range(members.ensemble_size)])


@pytest.mark.parametrize("shown", [True, False], ids=["with an example", "at the first call"])
@ALL
def test_auto_is_right_for_any_network_and_says_why(name: str, shown: bool) -> None:
    net, x = odd(name)
    members = ensemble(net, MEMBERS, FactorInit("normal", sd=0.3), example=x if shown else None)
    assert members.strategy == (ODD[name].strategy if shown else "auto")
    assert not members_equal(members)
    expected = folded(members, x)
    close_trees(members(x), expected)
    assert members.strategy == ODD[name].strategy
    first = members.summary().partition("\n")[0]
    assert first.startswith(f"{MEMBERS} members; strategy {ODD[name].strategy!r}: one pass over tiled rows ")
    assert ODD[name].reason in first
    with torch.no_grad():
        close_trees(members(x), expected)
        set_way(members, "activations")
        close_trees(members(x), expected)
    copies = ensemble(net, MEMBERS, "ones", example=x)
    close_trees(copies(x), stacked([net(x)] * MEMBERS))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["shared", "member"])
def test_one_pass_gives_what_a_loop_does(name: str, norm: str) -> None:
    members = perturb(ensemble(network(name).eval(), MEMBERS, norm=norm), seed=1)
    members.choose_strategy(images(2))
    without_statistics = name == "batch norm without statistics" and norm == "shared"
    assert members.strategy == ("loop" if without_statistics else "tile")
    if not without_statistics:
        close(members.tile(torch.cat([images()] * MEMBERS)), members.loop([images()] * MEMBERS), 1e-12)


class ZeroHead(ReadsWeight):
    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)


@pytest.mark.parametrize("make", [ZeroHead, ReadsWeightBeforeSmallScale])
def test_parameters_of_about_zero_hide_nothing(make: type[nn.Module]) -> None:
    members = ensemble(make().double(), MEMBERS, example=vectors())
    assert members.strategy == "loop"
    assert "one pass over tiled rows gives different outputs (relative difference" in members.strategy_reason


@pytest.mark.parametrize("autocast", [True, False])
def test_rounding_of_short_numbers_is_not_taken_for_a_mistake(autocast: bool) -> None:
    torch.manual_seed(0)
    dtype = torch.float32 if autocast else torch.bfloat16
    layers = [part for _ in range(24) for part in (nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU())]
    for make, strategy in ((lambda: nn.Sequential(*layers), "tile"), (ReadsWeight, "loop")):
        members = ensemble(make().to(dtype), MEMBERS)
        x = torch.randn(2, SIZE if strategy == "loop" else 32, dtype=dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            members.choose_strategy(x)
        assert members.strategy == strategy


class Single(ReadsWeight):
    """Computes in float32 only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([x[:, :-1], torch.ones(len(x), 1)], 1).float())


@pytest.mark.parametrize(
    ("make", "strategy"), [(Single, "loop"), (lambda: Two(lambda h: torch.tanh(h.float())), "tile")]
)
def test_a_network_that_fails_in_float64_is_compared_in_its_own_dtype(make: Any, strategy: str) -> None:
    torch.manual_seed(0)
    assert ensemble(make(), MEMBERS, example=vectors().float()).strategy == strategy


@pytest.mark.parametrize(("constant", "strategy"), [(0.0, "loop"), (50.0, "loop"), (1e4, "loop")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_numbers_with_a_constant_are_compared_in_float64(
    constant: float, strategy: str, dtype: torch.dtype
) -> None:
    class Shifted(ReadsWeight):
        def forward(self, x: Tensor) -> Tensor:
            return constant + super().forward(x)

    torch.manual_seed(0)
    assert ensemble(Shifted().to(dtype), MEMBERS, example=vectors().to(dtype)).strategy == strategy


@pytest.mark.parametrize("norm", ["shared", "member"])
def test_what_computes_a_constant_stays_shared(norm: str) -> None:
    net = perturb(Positions().double()).eval()
    x = vectors(5, 6, SIZE)
    members = ensemble(net, MEMBERS, norm=norm, example=x)
    assert members.strategy == "tile"
    assert "shared (computes a constant that does not depend on the batch): position.0, position.1, position.3" in (
        members.summary()
    )
    assert [type(module) for module in members.network.position] == [type(module) for module in net.position]
    at_first_call = [ensemble(net, MEMBERS, norm=norm, strategy=strategy) for strategy in ("auto", "tile", "loop")]
    for made in (members, ensemble(net, MEMBERS, norm=norm, example=x, strategy="loop"), *at_first_call):
        close(made(x), folded(made, x))
        assert made.shared.keys() == members.shared.keys()
        assert [type(module) for module in made.network.modules()] == [type(module) for module in members.modules()][1:]
        for own, plain in zip(made.network.position.parameters(), net.position.parameters(), strict=True):
            assert torch.equal(own, plain)
    assert at_first_call[0].strategy == "tile"


class Holder:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize("strategy", ["auto", "tile", "loop"])
def test_outputs_in_which_no_tensors_are_found_are_refused(strategy: Any) -> None:
    net = Two(after=lambda y, _: Holder(y)).double()
    with pytest.raises(
        InputError, match="the network returns a Holder, which is not supported: return tensors, or tuples, lists"
    ):
        ensemble(net, MEMBERS, strategy=strategy)(vectors())


def test_a_forced_strategy_is_not_tried() -> None:
    net, x = odd("mixes rows")
    for strategy in ("tile", "loop"):
        members = ensemble(net, MEMBERS, example=x, strategy=strategy)
        right = folded(members, x)
        assert members.strategy == strategy
        assert f"strategy {strategy!r}: as requested" in members.summary()
        difference = float((members(x) - right).detach().abs().max())
        assert difference < 1e-12 if strategy == "loop" else difference > 1e-3


@pytest.mark.parametrize("name", [name for name, case in ODD.items() if isinstance(case.x, Tensor) and len(case.x) > 2])
def test_a_loop_takes_split_batches(name: str) -> None:
    case: Odd = ODD[name]
    x = case.x.repeat_interleave(3, 0)[: 2 * MEMBERS]
    net = perturb(case.make().double()).eval()
    if name == "a fixed batch size":
        net.between = lambda hidden: torch.tanh(hidden.view(2, SIZE))
    members = ensemble(net, MEMBERS)
    expected = stacked([fold(members, member)(part) for member, part in enumerate(x.chunk(MEMBERS))])
    close_trees(members(x, feed="split"), expected)
    members = ensemble(net, MEMBERS, "ones", strategy="loop")
    close_trees(members(x, feed="split"), stacked([net(part) for part in x.chunk(MEMBERS)]))


@pytest.mark.parametrize("strategy", ["loop", "tile"])
def test_gradients_are_those_of_the_members_written_out(strategy: Any) -> None:
    net = perturb(Two().double())
    members = perturb(ensemble(net, MEMBERS, strategy=strategy))
    x = vectors().requires_grad_()
    direction = vectors(MEMBERS, 6, 3, seed=2)
    found = torch.autograd.grad((members(x) * direction).sum(), [*members.parameters(), x])
    outputs = []
    for member in range(MEMBERS):
        tensors = {}
        for name in ("first", "last"):
            layer = members.network.get_submodule(name)
            tensors[f"{name}.weight"] = member_weight(layer.weight, layer.r[member], layer.s[member])
            tensors[f"{name}.bias"] = layer.bias[member]
        outputs.append(torch.func.functional_call(net, tensors, (x,)))
    expected = torch.autograd.grad((torch.stack(outputs) * direction).sum(), [*members.parameters(), x])
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 0
        close(one, other)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_loop_trains_the_statistics_of_norms_as_one_pass_does(momentum: float | None) -> None:
    net = perturb(nn.Sequential(nn.Linear(SIZE, 5), nn.BatchNorm1d(5, momentum=momentum), nn.Linear(5, 3)).double())
    one_pass = ensemble(net.train(), MEMBERS, norm="member", strategy="tile")
    loop = deepcopy(one_pass)
    loop.strategy = "loop"
    for seed in range(3):
        close(loop(vectors(seed=seed)), one_pass(vectors(seed=seed)))
    for one, other in zip(loop.buffers(), one_pass.buffers(), strict=True):
        close(one, other)
    assert int(loop.network[1].num_batches_tracked) == 3


class Centred(nn.Module):
    """Mixes rows: takes the mean of the batch away."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(hidden - hidden.mean(0))


@pytest.mark.parametrize("rows", [torch.zeros(4, 8), torch.ones(4, 8)])
def test_a_batch_of_equal_rows_does_not_hide_that_rows_mix(rows: Tensor) -> None:
    members = ensemble(Centred(), 4, init="normal")
    members(rows)
    assert members.strategy == "loop"


def test_an_empty_batch_settles_nothing() -> None:
    members = ensemble(nn.Sequential(nn.Linear(8, 3)), 4, init="normal")
    assert members(torch.zeros(0, 8)).shape == (4, 0, 3)
    assert members.strategy == "auto"
    members(torch.randn(2, 8))
    assert members.strategy == "tile"
