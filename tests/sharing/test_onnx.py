"""A folded member leaves Python: exported to ONNX, it computes elsewhere what it does here."""

import io
from typing import Any

import pytest
import torch
from explicit import perturb
from test_fold import MORE, Tied
from torch import Tensor, nn

from bayes_share.sharing import ensemble, fold

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.filterwarnings("ignore")


def small_network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4),
        nn.GroupNorm(2, 8),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 5),
    )


CASES: dict[str, tuple[Any, Tensor]] = {
    "convolutions": (small_network, torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))),
    "ties": (Tied, torch.randn(3, 4, generator=torch.Generator().manual_seed(0))),
    "tokens": (MORE["tokens"][0], MORE["tokens"][1]),
}


OPTIONS: dict[str, dict[str, Any]] = {
    "rank 2": {"init": "normal", "factor_rank": 2},
    "additive": {"init": "normal", "factor_form": "additive", "factor_rank": 2},
    "fixed signs": {"init": "fixed_sign"},
    "own norms and head": {"init": "random_sign", "own": ("norms", "head")},
}


def in_onnx(plain: nn.Module, x: Tensor, dynamo: bool) -> Tensor:
    """Export a network to ONNX, and return its outputs in onnxruntime."""
    file = io.BytesIO()
    if dynamo:
        program = torch.onnx.export(plain, (x,), dynamo=True, input_names=["x"])
        program.save(file)
    else:
        torch.onnx.export(plain, (x,), file, dynamo=False, input_names=["x"])
    session = onnxruntime.InferenceSession(file.getvalue())
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


@pytest.mark.parametrize("dynamo", [False, True], ids=["traced", "exported"])
@pytest.mark.parametrize("name", CASES)
def test_a_folded_member_runs_in_onnx(name: str, dynamo: bool) -> None:
    if dynamo and name == "convolutions" and torch.__version__.startswith("2.6."):
        pytest.skip("torch 2.6 exports no batch norm with the onnxscript of today")
    torch.manual_seed(0)
    make, x = CASES[name]
    net = perturb(make()).eval()
    members = ensemble(net, 3, example=x)
    outputs = members(x).detach()
    for member in range(2):
        found = in_onnx(fold(members, member), x, dynamo)
        torch.testing.assert_close(found, outputs[member], rtol=1e-4, atol=1e-4)
    assert float((outputs[0] - outputs[1]).abs().max()) > 1e-2


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["convolutions", "tokens"])
def test_a_folded_member_with_other_factors_or_own_weights_runs_in_onnx(name: str, options: str) -> None:
    torch.manual_seed(0)
    make, x = CASES[name]
    members = perturb(ensemble(make(), 2, **OPTIONS[options])).eval()
    outputs = members.tile(torch.cat([x, x])).detach()
    for member in range(2):
        found = in_onnx(fold(members, member), x, dynamo=False)
        torch.testing.assert_close(found, outputs[member], rtol=1e-4, atol=1e-4)
    assert float((outputs[0] - outputs[1]).abs().max()) > 1e-2
