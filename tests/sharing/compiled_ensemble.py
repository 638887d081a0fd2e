"""Run as a script: a compiled ensemble computes what it does uncompiled."""

import sys
from copy import deepcopy

import torch
from explicit import close
from nets import images, network
from torch import nn

from bayes_share.sharing import ensemble


def check(name: str, norm: str) -> None:
    members = ensemble(network(name).train(), 3, norm=norm, example=images(2))
    for module in members.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    compiled = deepcopy(members)
    compiled.compile(fullgraph=True)
    assert compiled.state_dict().keys() == members.state_dict().keys()
    results = []
    for each in (members, compiled):
        outputs = each(images())
        outputs.square().sum().backward()
        gradients = [parameter.grad for parameter in each.parameters()]
        assert all(gradient is not None for gradient in gradients)
        each.eval()
        with torch.no_grad():
            results.append(
                [outputs.detach(), *gradients, *each.buffers(), each(images()), each(images(3), feed="split")]
            )
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected, 1e-9)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # so it was compiled


if __name__ == "__main__":
    check(*sys.argv[1:])
