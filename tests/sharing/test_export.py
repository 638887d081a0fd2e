"""An ensemble leaves Python through `torch.export`, for batches of any size."""

from collections.abc import Callable

import pytest
import torch
from explicit import close, perturb
from nets import images, network
from torch import Tensor, nn

from bayes_share.sharing import ensemble

pytestmark = pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch before 2.7")

MEMBERS = 3


def tokens() -> tuple[nn.Module, Callable[[int], Tensor]]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    return nn.Sequential(layer, nn.Linear(8, 4).double()), lambda count: torch.randn(count, 5, 8, dtype=torch.float64)


def case(name: str) -> tuple[nn.Module, Callable[[int], Tensor]]:
    return tokens() if name == "tokens" else (network(name), images)


@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("strategy", ["tile", "loop"])
@pytest.mark.parametrize("name", ["no norm", "batch norm 2d", "filter response norm", "tokens"])
def test_an_ensemble_is_exported_for_batches_of_any_size(name: str, strategy: str, norm: str) -> None:
    net, batch = case(name)
    members = perturb(ensemble(net.eval(), MEMBERS, norm=norm, strategy=strategy), seed=1)
    sizes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    program = torch.export.export(members, (batch(4),), dynamic_shapes=sizes).module()
    for count in (1, 4, 7):
        x = batch(count)
        with torch.no_grad():
            close(program(x), members(x), 1e-10)
