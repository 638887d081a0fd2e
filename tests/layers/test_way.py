"""The way of computing: it belongs to the layers and is kept by copies and conversions."""

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
from bayes_share.layers.way import folds_weights, predicts_folded
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
    """Whether each layer folds its weights, in the order of the calls."""
    decided: list[bool] = []
    rule = factored.folds_weights

    def decide(*given: Any) -> bool:
        decided.append(rule(*given))
        return decided[-1]

    monkeypatch.setattr(factored, "folds_weights", decide)
    return decided


@pytest.mark.parametrize(("way", "folds"), [("activations", False), ("weights", True)])
@pytest.mark.parametrize("count", [1, 400])
def test_a_layer_with_a_fixed_way_ignores_the_sizes(way: Any, folds: bool, count: int, folding: list[bool]) -> None:
    made = perturb(ensemble(network(), MEMBERS, way=way, strategy="tile"))
    assert ways(made) == [way] * 3
    x = vectors(count)
    close(made(x), torch.stack([fold(made, member)(x) for member in range(MEMBERS)]), 1e-12)
    assert folding == [folds] * 3


def test_constructors_pass_the_way_to_submodules(folding: list[bool]) -> None:
    assert ways(Rank1Linear(3, 2, ensemble_size=2, way="weights")) == ["weights"]
    attention = Rank1MultiheadAttention(4, 2, ensemble_size=2, way="activations")
    assert ways(attention) == ["activations"] * 2
    attention(*[torch.zeros(3, 2, 4)] * 3)
    set_way(attention, "weights")
    attention(*[torch.zeros(3, 2, 4)] * 3)
    assert folding == [False] * 4 + [True] * 4
    assert ways(ensemble(nn.MultiheadAttention(4, 2), 2, way="weights")) == ["weights"] * 2


def test_each_layer_has_its_own_threshold_for_auto(folding: list[bool]) -> None:
    layer = Rank1Linear(4, 4, ensemble_size=2)
    for layer.fold_above in (0.5, 100.0):
        layer(torch.zeros(20, 4))
    assert folding == [True, False]


@pytest.mark.parametrize(("batch", "folds"), [(4, False), (5, True)])
def test_auto_compares_the_inputs_of_one_use_with_its_weight(batch: int, folds: bool) -> None:
    """4 examples of 8 inputs are half as many values as a weight [8, 8], whatever the number of uses."""
    for uses in (1, 3):
        assert folds_weights("auto", torch.empty(uses * batch, 8), torch.empty(8, 8), uses) is folds


@pytest.mark.parametrize(
    ("way", "folds", "device"),
    [("auto", True, "cpu"), ("auto", False, "cuda"), ("activations", False, "cpu"), ("weights", True, "cuda")],
)
def test_predictions_are_folded_depending_on_way_and_device(way: Any, folds: bool, device: str) -> None:
    made = ensemble(network(), MEMBERS, way=way)
    assert predicts_folded(set(ways(made)), torch.device(device)) is folds


def test_predictions_are_not_folded_if_a_layer_multiplies_activations(folding: list[bool]) -> None:
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
def test_copies_and_conversions_keep_the_way(name: str) -> None:
    made = CARRIED[name](ensemble(network(), MEMBERS, way="weights"))
    assert ways(made) == ["weights"] * 3
    assert "way" not in " ".join(made.state_dict())


def test_conversions_in_any_order_keep_a_given_way() -> None:
    assert ways(ensemble(share_layers(network(), way="weights"), MEMBERS)) == ["weights", "weights", "auto"]
    assert ways(share_layers(ensemble(network(), MEMBERS, way="weights"))) == ["weights"] * 3
    both = share_layers(ensemble(network(), MEMBERS, way="weights"), way="activations")
    assert ways(both) == ["activations", "activations", "weights"]
    assert ways(ensemble(share_layers(network(), way="weights"), MEMBERS, way="activations")) == ["activations"] * 3


def test_a_folded_member_has_no_way_attribute() -> None:
    made = ensemble(network(), MEMBERS, way="weights")
    for plain in (fold(made, 0), made.plain, fold(share_layers(network(), way="weights"))):
        assert not any({"way", "fold_above"} & vars(module).keys() for module in plain.modules())


def test_functional_calls_and_exported_programs_use_the_way(folding: list[bool]) -> None:
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


def test_a_compiled_network_follows_a_change_of_way() -> None:
    subprocess.run([sys.executable, "-c", COMPILED], check=True)  # in a process without run-time annotation checks


def test_repr_shows_a_way_other_than_auto() -> None:
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
def test_an_unknown_way_raises(use: Callable[[str], object]) -> None:
    with pytest.raises(InputError, match=r"unknown way of computing 'weight': did you mean 'weights'\?"):
        use("weight")


def test_set_way_on_a_network_without_rank1_layers_raises() -> None:
    with pytest.raises(InputError, match="this Sequential has no rank-1 layers"):
        set_way(network(), "weights")
