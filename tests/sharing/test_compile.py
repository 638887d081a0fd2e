"""An ensemble whose network is compiled."""

from copy import deepcopy

import pytest
import torch
from explicit import close
from nets import images, network

from bayes_share.sharing import ensemble


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", ["shared", "member"])
@pytest.mark.parametrize("name", ["batch norm 1d", "group norm", "filter response norm"])
def test_a_compiled_ensemble_computes_the_same(name: str, norm: str) -> None:
    torch.compiler.reset()
    members = ensemble(network(name).train(), 3, norm=norm, example=images(2))
    for module in members.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    compiled = deepcopy(members)
    compiled.compile(fullgraph=True)
    results = []
    for each in (members, compiled):
        outputs = each(images())
        outputs.square().sum().backward()
        gradients = [parameter.grad for parameter in each.parameters()]
        each.eval()
        with torch.no_grad():
            results.append([outputs.detach(), *gradients, *each.buffers(), each(images()), each(images(3), "split")])
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected, 1e-9)
    assert compiled.state_dict().keys() == members.state_dict().keys()
