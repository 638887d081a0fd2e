"""Networks of torchvision, as the benchmark of all of them checks them: a quick selection."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

LAYERS = {
    "resnet18": ("tile", 21),
    "squeezenet1_1": ("tile", 26),
    "shufflenet_v2_x0_5": ("tile", 57),
    "mobilenet_v3_small": ("tile", 54),
    "regnet_y_400mf": ("tile", 86),
    "efficientnet_b0": ("tile", 82),
    "swin_v2_t": ("loop", 53),
}


@pytest.fixture(scope="module")
def zoo() -> Iterator[ModuleType]:
    """The benchmarks are not installed; they are found from the root of the clone."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    sys.path.append(root)
    yield importlib.import_module("benchmarks.zoo")
    sys.path.remove(root)


SLOW = {"swin_v2_t", "efficientnet_b0"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in LAYERS])
def test_members_are_the_network_and_fold_into_it(zoo: ModuleType, name: str) -> None:
    found = zoo.check(name)
    assert found.problem is None
    assert (found.strategy, sum(found.factored.values())) == LAYERS[name]


def test_a_network_with_a_mistake_is_a_problem(
    zoo: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert zoo.main(["--names", "squeezenet1_1", "--out", str(tmp_path / "zoo.json"), "--markdown"]) == 0
    assert "| squeezenet1_1 (torchvision) | 32 | 1.2 M | 26 | – | tile |" in capsys.readouterr().out
    fold = zoo.fold
    monkeypatch.setattr(zoo, "fold", lambda net, member: fold(net, (member + 1) % 3))
    assert zoo.main(["--names", "squeezenet1_1"]) == 1
    assert "squeezenet1_1 FAILS: a folded member differs from the member" in capsys.readouterr().out
    monkeypatch.setattr(zoo, "fold", lambda net, member: 1 / 0)
    assert zoo.main(["--names", "squeezenet1_1"]) == 1
    assert "squeezenet1_1 FAILS: ZeroDivisionError: division by zero" in capsys.readouterr().out
