"""The way of computing belongs to the layers, and goes wherever they go."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from explicit import close, perturb
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.layers import Rank1Linear, Rank1MultiheadAttention, factored, set_way
from bayes_share.layers.factored import Factored
from bayes_share.layers.way import predicts_folded
from bayes_share.sharing import ensemble, fold, share_groups, share_layers, take_member

MEMBERS = 3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double().eval()


def vectors(count: int = 5) -> Tensor:
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def ways(net: nn.Module) -> list[str]:
    return [module.way for module in net.modules() if isinstance(module, Factored)]


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each layer decides, in the order of their calls."""
    decided: list[bool] = []
    rule = factored.folds_weights

    def decide(*given: Any) -> bool:
        decided.append(rule(*given))
        return decided[-1]

    monkeypatch.setattr(factored, "folds_weights", decide)
    return decided


@pytest.mark.parametrize(("way", "folds"), [("activations", False), ("weights", True)])
@pytest.mark.parametrize("count", [1, 400])
def test_a_layer_computes_in_its_way_whatever_the_sizes(way: Any, folds: bool, count: int, folding: list[bool]) -> None:
    made = perturb(ensemble(network(), MEMBERS, way=way, strategy="tile"))
    assert ways(made) == [way] * 3
    x = vectors(count)
    close(made(x), torch.stack([fold(made, member)(x) for member in range(MEMBERS)]), 1e-12)
    assert folding == [folds] * 3


def test_the_layer_itself_takes_it_and_its_parts_too(folding: list[bool]) -> None:
    assert ways(Rank1Linear(3, 2, ensemble_size=2, way="weights")) == ["weights"]
    attention = Rank1MultiheadAttention(4, 2, ensemble_size=2, way="activations")
    assert ways(attention) == ["activations"] * 2
    attention(*[torch.zeros(3, 2, 4)] * 3)
    set_way(attention, "weights")
    attention(*[torch.zeros(3, 2, 4)] * 3)
    assert folding == [False] * 4 + [True] * 4
    assert ways(ensemble(nn.MultiheadAttention(4, 2), 2, way="weights")) == ["weights"] * 2


def test_the_threshold_of_auto_is_a_layers_own(folding: list[bool]) -> None:
    layer = Rank1Linear(4, 4, ensemble_size=2)
    for layer.fold_above in (0.5, 100.0):
        layer(torch.zeros(20, 4))
    assert folding == [True, False]


@pytest.mark.parametrize(
    ("way", "folds", "device"),
    [("auto", True, "cpu"), ("auto", False, "cuda"), ("activations", False, "cpu"), ("weights", True, "cuda")],
)
def test_predictions_follow_the_layers(way: Any, folds: bool, device: str) -> None:
    made = ensemble(network(), MEMBERS, way=way)
    assert predicts_folded(set(ways(made)), torch.device(device)) is folds


def test_an_ensemble_with_a_layer_that_multiplies_activations_is_not_folded(folding: list[bool]) -> None:
    made = ensemble(network(), MEMBERS, strategy="tile")
    with torch.no_grad():
        made(vectors())
    assert folding == []
    set_way(made.network[2], "activations")
    with torch.no_grad():
        made(vectors())
    assert len(folding) == 3


CARRIED: dict[str, Callable[[Any], nn.Module]] = {
    "deepcopy": deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "take_member": lambda net: take_member(net, 1),
    "share_layers": share_layers,
    "share_groups": lambda net: share_groups(net, 2),
    "double": lambda net: net.double(),
}


@pytest.mark.parametrize("name", CARRIED)
def test_it_goes_where_the_layers_go(name: str) -> None:
    made = CARRIED[name](ensemble(network(), MEMBERS, way="weights"))
    assert ways(made) == ["weights"] * 3
    assert "way" not in " ".join(made.state_dict())


def test_conversions_in_any_order_leave_a_way_that_was_given() -> None:
    assert ways(ensemble(share_layers(network(), way="weights"), MEMBERS)) == ["weights", "weights", "auto"]
    assert ways(share_layers(ensemble(network(), MEMBERS, way="weights"))) == ["weights"] * 3
    both = share_layers(ensemble(network(), MEMBERS, way="weights"), way="activations")
    assert ways(both) == ["activations", "activations", "weights"]
    assert ways(ensemble(share_layers(network(), way="weights"), MEMBERS, way="activations")) == ["activations"] * 3


def test_a_folded_member_has_none() -> None:
    made = ensemble(network(), MEMBERS, way="weights")
    for plain in (fold(made, 0), made.plain, fold(share_layers(network(), way="weights"))):
        assert not any({"way", "fold_above"} & vars(module).keys() for module in plain.modules())


def test_calls_under_other_parameters_and_exported_programs_compute_in_it(folding: list[bool]) -> None:
    made = ensemble(network(), MEMBERS, way="weights", strategy="tile")
    expected = made(vectors())
    values = {name: parameter.detach().clone() for name, parameter in made.named_parameters()}
    close(torch.func.functional_call(made, values, (vectors(),)), expected, 1e-12)
    exported = torch.export.export(made, (vectors(),), strict=False).module()
    close(exported(vectors()), expected, 1e-12)
    assert all(folding)
    set_way(made, "activations")
    close(made(vectors()), expected, 1e-12)


COMPILED = """
import torch
from torch import nn
from bayes_share.layers import set_way
from bayes_share.sharing import ensemble
made = ensemble(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), 3, way="weights", strategy="tile").network
compiled, rows = torch.compile(made, backend="eager", fullgraph=True), torch.randn(12, 4)
assert torch.equal(compiled(rows), made(rows))
by_weights = made(rows)
set_way(made, "activations")
assert torch.equal(compiled(rows), made(rows))
assert not torch.equal(made(rows), by_weights)
"""


def test_a_compiled_network_follows_a_change() -> None:
    subprocess.run([sys.executable, "-c", COMPILED], check=True)  # where no annotation is checked in what is compiled


def test_printing_shows_a_way_that_was_asked_for() -> None:
    assert "way='weights'" in repr(ensemble(network(), MEMBERS, way="weights"))
    assert "way" not in repr(ensemble(network(), MEMBERS))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "use",
    [
        lambda way: Rank1Linear(3, 2, way=way),
        lambda way: ensemble(network(), way=way),
        lambda way: share_layers(network(), way=way),
        lambda way: set_way(Rank1Linear(3, 2), way),
    ],
)
def test_an_unknown_name_is_one_line(use: Callable[[str], object]) -> None:
    with pytest.raises(InputError, match=r"unknown way of computing 'weight': did you mean 'weights'\?"):
        use("weight")


def test_a_network_that_has_one_way_only_is_refused() -> None:
    with pytest.raises(InputError, match="this Sequential has no rank-1 layers"):
        set_way(network(), "weights")
